"""A run on several processes: how they find each other, agree, share arrays and stop together."""
