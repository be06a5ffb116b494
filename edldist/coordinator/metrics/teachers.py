"""What the coordinator tells of teacher groups and their workers."""

from __future__ import annotations

from edldist.coordinator.metrics.spec import MetricSpec, counter, gauge, histogram, info, queues, tensor_bytes

__all__ = ["TEACHERS"]

TEACHERS: tuple[MetricSpec, ...] = (
    gauge(
        "edldist_teacher_workers",
        "workers",
        "group",
        "workers",
        "Workers of a teacher group that are here and do not drain.",
    ),
    gauge(
        "edldist_teacher_draining_workers",
        "workers",
        "group",
        "draining",
        "Workers of a teacher group that finish what they have begun, and leave.",
    ),
    gauge(
        "edldist_teacher_wanted_workers",
        "workers",
        "group",
        "wanted",
        "Workers that a teacher group should have. It stays above edldist_teacher_workers where a cluster "
        "has no room for more.",
    ),
    gauge(
        "edldist_teacher_least_workers",
        "workers",
        "group",
        "least",
        "Lower bound of the wanted workers, where the autoscaler decides.",
    ),
    gauge(
        "edldist_teacher_most_workers",
        "workers",
        "group",
        "most",
        "Upper bound of the wanted workers, where the autoscaler decides.",
    ),
    gauge(
        "edldist_teacher_held_workers",
        "workers",
        "group",
        "held",
        "Workers that a person asked for with edldist scale, until they ask for auto. Absent otherwise.",
    ),
    gauge(
        "edldist_teacher_demand_samples_per_second",
        "samples per second",
        "group",
        "demand",
        "What the students would take of a teacher group if they never waited for labels.",
    ),
    gauge(
        "edldist_teacher_starved_ratio",
        "share",
        "group",
        "starved",
        "Share of the last seconds in which the student that waits most waited for labels: 0 where teachers "
        "are fast enough, 1 where training stands.",
    ),
    gauge(
        "edldist_teacher_overload_step",
        "step",
        "group",
        "shed",
        "What is done because jobs that share a teacher group ask more than it gives. 0: nothing; 1: less is "
        "read ahead; 2: stored labels come first; 3: jobs are degraded as they allow; 4: jobs of a lower "
        "priority wait.",
    ),
    gauge(
        "edldist_teacher_capacity_samples_per_second",
        "samples per second",
        "device",
        "by_device",
        "What one worker on such a device could label if it never waited for tasks.",
    ),
    histogram(
        "edldist_teacher_stage_seconds",
        "seconds",
        "stage",
        "teacher",
        "How long each stage of a task takes in a teacher worker, of those tasks that are timed: one in 20 "
        "ms of each worker. receive: its message is read; decode: bytes become tensors, or samples are read "
        "from the data set; batch: tasks of a pass are joined; copy_in: to the device; forward: the model; "
        "encode: the codec; copy_out: labels to the host; send: labels are handed to the socket.",
    ),
    histogram(
        "edldist_teacher_stage_wait_seconds",
        "seconds",
        "queue",
        "teacher",
        "How long such a task waits for each stage. decode: for a pass to take it; batch: read ahead, for "
        "the device; forward: for the pass before it; send: for the thread that owns the sockets. Stages "
        "and waits together are its whole time in the worker.",
    ),
    info(
        "edldist_worker",
        "worker",
        "info",
        "Always 1. Its labels say of which version a worker's weights are, and on what device they are.",
    ),
    counter(
        "edldist_worker_samples",
        "samples",
        "worker",
        "samples",
        "Samples that a teacher worker has labelled.",
    ),
    counter(
        "edldist_worker_tasks",
        "tasks",
        "worker",
        "tasks",
        "Tasks that a teacher worker has labelled: slices of batches.",
    ),
    counter(
        "edldist_worker_passes",
        "passes",
        "worker",
        "passes",
        "Forward passes of a teacher worker; one may hold several tasks.",
    ),
    counter(
        "edldist_worker_busy_seconds",
        "seconds",
        "worker",
        "busy_s",
        "Time that a teacher worker has spent in forward passes. Its rate is the share in which its device "
        "works, of both sides together where two passes overlap.",
    ),
    counter(
        "edldist_worker_out_of_memory",
        "passes",
        "worker",
        "out_of_memory",
        "Forward passes that found no memory, and were made smaller.",
    ),
    gauge(
        "edldist_worker_held_tasks",
        "tasks",
        "worker",
        "held",
        "Tasks that a teacher worker has in its hands: about two while it is busy.",
    ),
    gauge(
        "edldist_worker_room_samples",
        "samples",
        "worker",
        "room",
        "Most samples (tokens, of sequences) that a teacher worker may hold and have asked for: what all its "
        "queues together are bounded by. Two passes, several where these are brief, fewer where they are "
        "large.",
    ),
    *queues(),
    gauge(
        "edldist_worker_batch_size",
        "samples",
        "worker",
        "batch_size",
        "Most samples of one forward pass of a teacher worker.",
    ),
    *tensor_bytes("worker", "a teacher worker"),
)
