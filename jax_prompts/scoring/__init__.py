"""Scoring of answers: metrics, averages, baselines, intervals, and the choice of the best prompt."""
