#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-2%2
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=8
#SBATCH --error=/scratch/out/.slurm/bench-01234567/%A_%a_0_log.err
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --job-name=bench-01234567
#SBATCH --mem=12800MB
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/out/.slurm/bench-01234567/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --reservation=school
#SBATCH --signal=USR2@90
#SBATCH --time=30
#SBATCH --wckey=submitit

# setup
module load cuda
ulimit -n 4096

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /scratch/out/.slurm/bench-01234567/%A_%a_%t_log.out --error /scratch/out/.slurm/bench-01234567/%A_%a_%t_log.err /python -u -m submitit.core._submit /scratch/out/.slurm/bench-01234567
