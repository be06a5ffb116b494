#!/bin/bash
# Workers of teacher big, one a task, of job full. Written by edldist.
#SBATCH --job-name=full-2aa01fe3.teacher.big
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=65536M
#SBATCH --gres=gpu:a100:1,accel:fast:1
#SBATCH --partition=spot,gpu
#SBATCH --account=lab
#SBATCH --qos=low
#SBATCH --reservation=friday
#SBATCH --constraint=h100
#SBATCH --time=1-12:00
#SBATCH --nice=100
#SBATCH --signal=B:USR1@300
#SBATCH --no-requeue
#SBATCH --open-mode=append
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --chdir=/home/me/jobs
#SBATCH --output="/shared/out/full run/logs/slurm/%x-%A_%a.log"
#SBATCH --exclusive
#SBATCH --mail-type=END,FAIL

unset "${!EDLDIST_@}"

# What the process is asked for: to come back, or to stay away. It gets a SIGTERM; all of its step does.
wish='' step='' told=''
tell() {
    told=1
    scancel --signal=TERM "$task" || kill -USR1 "$step"
}
asked() {
    [ "$wish" = away ] || wish=$1
    [ -z "$step" ] || [ "$2" = told ] || tell
}
trap 'asked back now' USR1
trap 'asked away now' USR2
trap 'asked away told' TERM

module load cuda
export A='b c'
output='/shared/out/full run'
process=big-$SLURM_ARRAY_TASK_ID
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
export PYTHONUNBUFFERED=1
export A=1
export B=2

# Each attempt has a folder of its own for its log.
logs=$output/logs/$process
mkdir -p "$logs" || exit 1
attempt=0
until mkdir "$logs/$attempt" 2> /dev/null; do
    [ -d "$logs/$attempt" ] || exit 1
    attempt=$((attempt + 1))
done
log=$logs/$attempt/log
echo "$process, attempt $attempt: job $task on $(hostname), $(date)"
rm -f "$output/slurm/ended/$process"

# Steps are cancelled by number. An srun that was left on a host that was cut off does that when it is told to
# end there, so the step of the next attempt has another number.
restarts=${SLURM_RESTART_COUNT:-0}
[ $((restarts % 2)) = 0 ] || srun --ntasks=1 --input=none true

# The step's exit code comes through a pipe: after signals that arrive together, `wait` may have another one.
exec 3<> <(:)
code=143
if [ -z "$wish" ]; then
    (
        trap : TERM
        (
            echo "$BASHPID" >&3
            exec srun --ntasks=1 --cpus-per-task=8 --input=none /opt/python -m edldist_launch teacher --import-from /home/me/jobs --coordinator 'file:/shared/out/full run/slurm/coordinator.json' --id "$process" --attempt "$attempt" --name big --model a.b:c --device cuda:1 --model-arg path=m --model-arg 'layers=[1, 2.5, null, {a: '"'"'1'"'"'}]' --batch-size 7 --codec dense:bf16 --drain-s 20.0 --weights w.safetensors --outputs logits --vocabulary v/tok --model-version '7 b' --allow-nonfinite --compile --autocast bf16 --channels-last --dataset d:f --dataset-threads 4 --dataset-inputs 0,mask > "$log" 2>&1 3>&-
        )
        echo $? >&3
    ) &
    runner=$!
    until read -t 1 -r step <&3 || ! kill -0 "$runner" 2> /dev/null; do :; done
    [ -z "$wish" ] || [ -n "$told" ] || tell
    until read -t 0 <&3 || ! kill -0 "$runner" 2> /dev/null; do
        wait "$runner"
    done
    step=''
    if ! read -t 0 <&3 || ! read -r code <&3; then # its runner was killed
        wait "$runner"
        code=$?
    fi
fi
echo "$process, attempt $attempt: exit code $code${wish:+, asked to go}, $(date)"

# A host that was cut off goes on with what Slurm has given to another one since: that is left alone. And of a
# step that Slurm ended with its host srun says 0, as if it were done.
for _ in 1 2 3; do # what ends the step may end this, too
    known=$(scontrol show job -o "$task" |
        sed -n 's/.* Reason=NodeDown .*/lost/p; s/.* Restarts=\([0-9]*\) .*/\1/p')
    [ -z "$known" ] || break
done
[ "${known:-$restarts}" = "$restarts" ] || exit "$code"

case $code in 143 | 138)
    if [ "$wish" != away ] && [ no = yes ] && scontrol requeue "$task"; then
        sleep 60 # until Slurm ends this script
        exit "$code"
    fi
    ;;
esac
echo "$code" > "$output/slurm/ended/.$process.new"
mv "$output/slurm/ended/.$process.new" "$output/slurm/ended/$process"
exit "$code"
