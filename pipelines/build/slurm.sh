#!/bin/bash
# {title}
# Submit with `sbatch {file}`; options given there win over those here. Submitted again, it does what is left to do.
#SBATCH --job-name=seqjepa-build
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task=8 --mem=16G --time=24:00:00
#SBATCH --output={logs}/%x-%a.out --open-mode=append
#SBATCH --signal=B:USR1@60 --requeue
cd {folder}
again=
trap 'again=1; kill -TERM $pid' USR1 # the time limit is near: finished shards stay, and the task is queued again
trap 'kill -TERM $pid' TERM          # scancel or preemption
{command} --task-index "$SLURM_ARRAY_TASK_ID" --num-tasks {tasks} & pid=$!
until wait $pid; code=$?; ! kill -0 $pid 2>/dev/null; do :; done
[ -z "$again" ] || scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
exit $code
