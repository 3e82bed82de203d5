#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=1
#SBATCH --error=/runs/.jobs/%A_%a_0_log.err
#SBATCH --job-name=bench-e779fbfe
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/.jobs/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=01:00:00

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/.jobs/%A_%a_%t_log.out --error /runs/.jobs/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=1 bash -c 'trap "" USR2 TERM; exec "$@"' bash python3 -u -m bench.launch.job /runs/.jobs/bench-e779fbfe.json

#!/bin/bash

# Parameters
#SBATCH --array=0-0%1
#SBATCH --cpus-per-task=1
#SBATCH --dependency=afterok:4711_0
#SBATCH --error=/runs/.jobs/%A_%a_0_log.err
#SBATCH --job-name=bench-02201895
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/.jobs/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=01:00:00

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/.jobs/%A_%a_%t_log.out --error /runs/.jobs/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=1 bash -c 'trap "" USR2 TERM; exec "$@"' bash python3 -u -m bench.launch.job /runs/.jobs/bench-02201895.json
