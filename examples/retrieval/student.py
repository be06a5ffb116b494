"""Distil the retriever: a cross-encoder says which of the passages that the student mined answer a query."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import edldist
from examples.retrieval import recipe
from examples.retrieval.joint import LearningTeacher
from examples.retrieval.mining import Lists, Mined, Texts
from examples.retrieval.models import KINDS
from examples.retrieval.prepare import warmed_up


def main() -> None:
    parser = recipe.options(__doc__)
    parser.add_argument("--method", choices=("denoised", "augmented", "listwise"), default="listwise")
    parser.add_argument("--joint", action="store_true", help="train the teacher, too; its workers follow")
    args = recipe.parsed(parser)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)

    kind = KINDS[args.encoder]
    collection = kind.collection(args.seed)
    texts, mined = Texts(collection, kind.read), Mined(args.depth)
    model = warmed_up(args.seed, args.encoder)
    before = recipe.judge(model, texts, collection)
    asked = collection.train
    if args.method != "denoised":
        asked = torch.cat([asked, collection.unlabelled])
    lists = Lists(collection, asked, mined, args.length, args.seed)
    sampler = edldist.ElasticSampler(len(lists), kind.batch, seed=args.seed)
    loader = edldist.DistillLoader(
        DataLoader(lists, batch_sampler=sampler),
        inputs=("query", "passages"),
        versions=2 if args.joint else None,
    )
    optimizer = recipe.optimization(model, kind.rate)
    state = {"model": model, "optimizer": optimizer, "loader": loader, "mined": mined}
    out = Path(os.environ.get("EDLDIST_OUTPUT", "out/retrieval"))
    teacher = LearningTeacher(args.seed, args.encoder, out / "published") if args.joint else None
    if teacher is not None:
        state |= {"teacher": teacher.model, "teacher_optimizer": teacher.optimizer}
    checkpointer = edldist.Checkpointer(out / "checkpoints")
    step = checkpointer.restore(state) or 0
    parallel = DistributedDataParallel(model) if ranks > 1 else model
    if teacher is not None:
        teacher.start()
    newest = 0  # version of the teacher that labelled

    while step < args.steps:
        if mined.looks <= loader.epoch:  # a run that goes on in mid-epoch has its lists from the checkpoint
            mined.look(model, texts, asked)
        for batch, labels in loader:
            queries, passages = parallel(texts.queries[batch["query"]], texts.passages[batch["passages"]])
            judged = recipe.denoised(batch, labels["scores"])
            loss = recipe.contrast(queries, passages, batch, judged)
            own = recipe.own_scores(queries, passages)
            if args.method == "listwise":
                loss = loss + recipe.LISTWISE * edldist.losses.ranking(own, labels["scores"])
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            step += 1
            if teacher is not None:
                teacher.learn(batch, judged, own, step)
                newest = int(labels["version"].max())
            if rank == 0 and step % 10 == 0:
                edldist.report(step=step, steps=args.steps, loss=loss.item())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return
            if step == args.steps:
                break

    checkpointer.save(step, state, wait=True)
    if rank == 0:
        figures = recipe.judge(model, texts, collection)
        print(f"MRR@10 {figures['mrr']:.1f}, R-precision {figures['r_precision']:.1f}")
        edldist.report(step=step, steps=args.steps, r_precision_before=before["r_precision"], **figures)
        if teacher is not None:
            edldist.report(published=teacher.published, version=newest)
    checkpointer.close()
    loader.close()
    if teacher is not None:
        teacher.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
