"""What the coordinator tells of student ranks and their label queues."""

from __future__ import annotations

from edldist.coordinator.metrics.spec import MetricSpec, counter, gauge, histogram, tensor_bytes

__all__ = ["STUDENTS"]

STUDENTS: tuple[MetricSpec, ...] = (
    histogram(
        "edldist_student_stage_seconds",
        "seconds",
        "stage",
        "student",
        "How long a label's way takes on the students' side; group is the job. answer: from a task's lease "
        "until its labels are in place, travel and teacher included; buffer: from the read of a batch until "
        "it is handed on with its labels; starved: what the loop waited for each batch but the first.",
    ),
    counter(
        "edldist_student_samples",
        "samples",
        "student",
        "samples",
        "Samples that a student rank has taken, labelled: the progress of training.",
    ),
    counter(
        "edldist_student_batches",
        "batches",
        "student",
        "batches",
        "Batches that a student rank has taken: its steps.",
    ),
    counter(
        "edldist_student_starved_seconds",
        "seconds",
        "student",
        "starved_s",
        "Time that a student rank has waited for labels, its first batch left out. Its rate is the share of "
        "time lost to teachers that are too slow.",
    ),
    counter(
        "edldist_student_backpressure_seconds",
        "seconds",
        "student",
        "backpressure_s",
        "Time in which a student's queue was full, so that teachers had to wait for it. Its rate is near 1 "
        "where there are teachers to spare.",
    ),
    counter(
        "edldist_student_done_tasks",
        "tasks",
        "student",
        "done",
        "Tasks that were labelled for a student rank.",
    ),
    counter(
        "edldist_student_requeued_tasks",
        "tasks",
        "student",
        "requeued",
        "Tasks that went back to the front of a student's queue, since their worker was lost, failed or "
        "gave them back. Nothing is lost by it but time.",
    ),
    counter(
        "edldist_student_duplicate_answers",
        "answers",
        "student",
        "duplicates",
        "Answers that came when others had answered, or nobody wanted them any more: dropped.",
    ),
    counter(
        "edldist_student_late_answers",
        "answers",
        "student",
        "late",
        "Those of the duplicate answers that came from a worker which had been written off. Where they keep "
        "coming, heartbeat_ttl_s is too short for how long batches take.",
    ),
    counter(
        "edldist_student_hedged_tasks",
        "tasks",
        "student",
        "hedged",
        "Tasks that a second worker got, too, because the first one took long and the buffer was almost "
        "empty.",
    ),
    counter(
        "edldist_student_failed_tasks",
        "tasks",
        "student",
        "failed",
        "Attempts at tasks in which a model raised an error.",
    ),
    counter(
        "edldist_student_skipped_samples",
        "samples",
        "student",
        "skipped",
        "Samples that no worker could label, and that were left out (on_poison: skip).",
    ),
    counter(
        "edldist_student_left_out_samples",
        "samples",
        "student",
        "left_out",
        "Samples that were consumed without a step, because they had made the loss spike.",
    ),
    counter(
        "edldist_student_stale_samples",
        "samples",
        "student",
        "stale",
        "Samples whose labels were of too old a version of the teacher, and were asked for again.",
    ),
    counter(
        "edldist_student_found_samples",
        "samples",
        "student",
        "store_hits",
        "Samples whose labels were found in a store, so that no worker was asked.",
    ),
    counter(
        "edldist_student_unfound_samples",
        "samples",
        "student",
        "store_misses",
        "Samples of which a store had no labels. If a second epoch finds none, inputs differ each time.",
    ),
    counter(
        "edldist_student_coalesced_samples",
        "samples",
        "student",
        "coalesced",
        "Samples that got the labels of an equal one that was under way.",
    ),
    counter(
        "edldist_student_unkept_samples",
        "samples",
        "student",
        "store_dropped",
        "Samples whose labels were not kept, for lack of memory or of a disk that takes them.",
    ),
    counter(
        "edldist_student_missed_samples",
        "samples",
        "student",
        "missed",
        "Samples that went on without the labels of a teacher that was missing.",
    ),
    counter(
        "edldist_student_overload_seconds",
        "seconds",
        "student",
        "shed_s",
        "Time in which a student did something about an overloaded fleet, as the coordinator said. Absent "
        "while there was none.",
    ),
    counter(
        "edldist_student_held_seconds",
        "seconds",
        "student",
        "held_s",
        "Time in which a student read nothing, because jobs of a higher priority took all that the fleet "
        "gives.",
    ),
    counter(
        "edldist_student_degraded_samples",
        "samples",
        "student",
        "degraded",
        "Samples that went to a cheaper teacher, or came back in a smaller codec, as the job allows where "
        "the fleet is overloaded.",
    ),
    counter(
        "edldist_student_retracted_labels",
        "labels",
        "student",
        "retracted",
        "Labels of workers that were put aside, because they do not answer as the others do; others made "
        "them anew.",
    ),
    counter(
        "edldist_student_doubtful_labels",
        "labels",
        "student",
        "doubtful",
        "Labels that the loop had taken of workers that were put aside later: too late to make them anew.",
    ),
    gauge(
        "edldist_student_buffered_batches",
        "batches",
        "student",
        "buffered",
        "Labelled batches that a student has not taken yet. 0 is an empty buffer: it waits; the high "
        "watermark a full one.",
    ),
    gauge(
        "edldist_student_open_batches",
        "batches",
        "student",
        "open",
        "Batches that were read from the data loader and not taken by the loop yet, labelled or not.",
    ),
    gauge(
        "edldist_student_leased_tasks",
        "tasks",
        "student",
        "leased",
        "Tasks of a student that workers hold now, and have not answered.",
    ),
    gauge(
        "edldist_student_queue_bytes",
        "bytes",
        "student",
        "queue_bytes",
        "Memory of a student's open batches and their labels.",
    ),
    gauge(
        "edldist_student_connected_workers",
        "workers",
        "student",
        "teachers",
        "Teacher workers that are connected to a student.",
    ),
    gauge(
        "edldist_student_workers_aside",
        "workers",
        "student",
        "aside",
        "Connected workers that get no tasks, because they do not answer as the others do.",
    ),
    gauge(
        "edldist_student_largest_difference_nats",
        "nats",
        "student",
        "differs_nats",
        "Largest difference between workers that label, of distributions.",
    ),
    gauge(
        "edldist_student_largest_difference_ratio",
        "share",
        "student",
        "differs_relative",
        "Largest difference between workers that label, of other outputs.",
    ),
    counter(
        "edldist_student_garbage_messages",
        "messages",
        "student",
        "garbage",
        "Messages to a student that were none of edldist's: dropped.",
    ),
    *tensor_bytes("student", "a student rank"),
)
