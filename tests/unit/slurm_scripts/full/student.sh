#!/bin/bash
# Student nodes, one a task, of job full. Written by edldist.
#SBATCH --job-name=full-2aa01fe3.student
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=262144M
#SBATCH --gres=gpu:4,accel:2
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=low
#SBATCH --reservation=friday
#SBATCH --constraint=a100|h100
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
process=student-$SLURM_ARRAY_TASK_ID
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
export PYTHONUNBUFFERED=1
export EDLDIST_COORDINATOR='file:/shared/out/full run/slurm/coordinator.json'
export EDLDIST_OUTPUT='/shared/out/full run'
export EDLDIST_JOB=full
export EDLDIST_CHECKPOINT_KEEP=1
export EDLDIST_ON_POISON=raise
export EDLDIST_AGREEMENT=max_nats=0.5,max_relative=0.02,every_s=5.0
export EDLDIST_HEARTBEAT_TTL_S=20.0
export EDLDIST_DETERMINISTIC=1
export EDLDIST_TASK_SIZE=7
export EDLDIST_STORE=s3://b/kept
export EDLDIST_STORE_MEMORY_MIB=2048
export EDLDIST_STORE_DISK_MIB=1048576
export EDLDIST_STORE_PREPROCESSING='crop 224'
export EDLDIST_STORE_DATA='images, 2'
export EDLDIST_STORE_READ_ONLY=1
export EDLDIST_STORE_ONLY=0
export EDLDIST_STORE_TEACHERS='{"big": {"model": "a.b:c", "codec": "dense:bf16", "version": "7 b", "settings": "{\"autocast\": \"bf16\", \"dataset_inputs\": [0, \"mask\"], \"kwargs\": {\"layers\": [1, 2.5, null, {\"a\": \"1\"}], \"path\": \"m\"}, \"outputs\": [\"logits\"]}"}, "small": {"model": "a:c.d", "codec": "dense", "version": "", "settings": ""}}'
export X=y

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
            exec srun --ntasks=1 --cpus-per-task=16 --input=none /opt/python -m edldist_launch student --import-from /home/me/jobs --coordinator 'file:/shared/out/full run/slurm/coordinator.json' --nnodes 1:4 --nproc-per-node gpu --max-restarts 3 --grace-s 25.0 s.py --epochs 5 --lr 0.0001 1e-4 true no null '~' 07 1:4 '' 'é
' > "$log" 2>&1 3>&-
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
