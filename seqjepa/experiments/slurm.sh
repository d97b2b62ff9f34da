#!/bin/bash
# {title}
# Submit with `sbatch {file}`; options given there win over those here. Submitted again, it does what is left to do.
#SBATCH --job-name={job}
#SBATCH --array={array}
#SBATCH --gres=gpu:1 --cpus-per-task=8 --mem=32G --time=24:00:00
#SBATCH --output={logs}/%x-%a.out --open-mode=append
#SBATCH --signal=B:USR1@120 --requeue
cd {folder}
again=
trap 'again=1; kill -TERM $pid' USR1 # the time limit is near: the run saves, and the task is queued again
trap 'kill -TERM $pid' TERM          # scancel or preemption: the run saves
{command} --task "$SLURM_ARRAY_TASK_ID" & pid=$!
until wait $pid; code=$?; ! kill -0 $pid 2>/dev/null; do :; done
[ -z "$again" ] || scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
exit $code
