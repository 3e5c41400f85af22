#!/usr/bin/env bash
# t5x on GPUs under Slurm, a process for each; the processes find each other.
#
#   sbatch --nodes=2 scripts/slurm.sh train --gin_file=gin_configs/residual_xxl.gin --gin.MODEL_DIR=/shared/run
#
# 15 minutes before its time is up the run is asked to stop; it does so after the step, evaluation or filling of a token
# cache that goes on at that moment, leaves with status 75, and the job waits for its next turn. Where one of these takes
# longer: `sbatch --signal=TERM@3600 ...`.
#SBATCH --job-name=t5x
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@900
#SBATCH --requeue
#SBATCH --open-mode=append
# The signal goes to the processes alone, so that this script can ask for the next turn; scancel ends both.
set -uo pipefail
# srun returns their highest status. Since Slurm 22.05 it does not take --cpus-per-task from sbatch.
srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" .venv/bin/t5x "$@"
status=$?
if [[ $status == 75 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
