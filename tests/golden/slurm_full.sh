#!/bin/bash

# Parameters
#SBATCH --account=group
#SBATCH --array=0-1%2
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=8
#SBATCH --error=/runs/.jobs/%A_%a_0_log.err
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --job-name=bench-e779fbfe
#SBATCH --mail-type=FAIL
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/runs/.jobs/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=normal
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1-00:00:00

# setup
export OMP_NUM_THREADS=4
export NOTE='two words'
module load cuda/12.4 || exit 1
source 'my env/bin/activate' || exit 1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/.jobs/%A_%a_%t_log.out --error /runs/.jobs/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=8 bash -c 'trap "" USR2 TERM; exec "$@"' bash apptainer exec --nv bench.sif python -u -m bench.launch.job /runs/.jobs/bench-e779fbfe.json

#!/bin/bash

# Parameters
#SBATCH --account=group
#SBATCH --array=0-0%1
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:4711_0
#SBATCH --error=/runs/.jobs/%A_%a_0_log.err
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --job-name=bench-02201895
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=FAIL
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/runs/.jobs/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=normal
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1-00:00:00

# setup
export OMP_NUM_THREADS=4
export NOTE='two words'
module load cuda/12.4 || exit 1
source 'my env/bin/activate' || exit 1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/.jobs/%A_%a_%t_log.out --error /runs/.jobs/%A_%a_%t_log.err --kill-on-bad-exit=1 --cpus-per-task=8 bash -c 'trap "" USR2 TERM; exec "$@"' bash apptainer exec --nv bench.sif python -u -m bench.launch.job /runs/.jobs/bench-02201895.json
