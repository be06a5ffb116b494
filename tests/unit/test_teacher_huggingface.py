"""A folder of Hugging Face's is a teacher as it lies there, or says what it lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from edldist.errors import ConfigError, ContractError, ModelError, UnfitCodecError
from edldist.labels.codec import parse_codec
from edldist.teacher.model.huggingface import HuggingFaceFolder
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.forward import Forward, PassTerms
from edldist.teacher.passes.sequences import label_sequences
from edldist.teacher.worker import TeacherWorker, WorkerOptions, load_teacher
from edldist.vocabulary.sources import tokens_of
from edldist.wire.memory import MemoryTransport
from edldist.wire.sequences import ASKED, FIRST, MARKS

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
IDS = torch.arange(6).reshape(2, 3)


def gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_embd=8, n_head=2, vocab_size=20, n_positions=16, bos_token_id=0, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    gpt2().save_pretrained(folder)
    (folder / "vocab.json").write_text('{"a": 0}')
    return folder


@pytest.mark.parametrize("name", ["", "#AutoModelForCausalLM", "#GPT2LMHeadModel"])
def test_a_folder_labels_as_the_model_that_was_saved(saved, name):
    teacher = Teacher(f"hf:{saved}{name}", CPU)
    labels = teacher({"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    assert set(labels) == {"logits"}, "no cache"
    with torch.no_grad():
        torch.testing.assert_close(labels["logits"], gpt2()(input_ids=IDS).logits)


def test_arguments_go_to_from_pretrained(saved):
    teacher = Teacher(f"hf:{saved}", CPU, kwargs={"dtype": "bfloat16", "output_hidden_states": True})
    with pytest.raises(ModelError, match=r"'hidden_states': tuple; .*outputs: \[logits\]"):
        teacher({"input_ids": IDS})
    teacher = Teacher(
        f"hf:{saved}",
        CPU,
        kwargs={"dtype": "bfloat16", "output_hidden_states": True},
        outputs=["logits"],
    )
    assert teacher({"input_ids": IDS})["logits"].dtype == torch.bfloat16
    with pytest.raises(
        ModelError, match=r"cannot be loaded as GPT2LMHeadModel:\nTraceback[\s\S]*layer_count"
    ):
        Teacher(f"hf:{saved}", CPU, kwargs={"layer_count": 3})


def test_what_the_model_itself_calls_a_missing_input_is_no_fault_of_the_samples(saved):
    with pytest.raises(ContractError, match=r"\('attention_mask'\): it refuses them .*inputs=") as caught:
        Teacher(f"hf:{saved}", CPU)({"attention_mask": torch.ones_like(IDS)})
    caught.match("specify either input_ids or inputs_embeds")
    with pytest.raises(ModelError, match="index out of range") as caught:
        Teacher(f"hf:{saved}", CPU)({"input_ids": IDS + 20})
    assert not isinstance(caught.value, ContractError)


def test_a_model_that_was_placed_by_its_device_map_is_not_moved(saved):
    teacher = Teacher(f"hf:{saved}", torch.device("meta"), kwargs={"device_map": "cpu"})
    assert teacher.device == CPU
    assert teacher({"input_ids": IDS})["logits"].device == CPU


def test_workers_are_told_apart_by_class_weights_and_tokenizer_and_not_by_folder(saved, tmp_path):
    one = Teacher(f"hf:{saved}", CPU)
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    same = Teacher(f"hf:{copy}", CPU)
    assert (one.identity, one.digest, one.tokenizer) == (same.identity, same.digest, same.tokenizer)
    assert one.identity == "hf:GPT2LMHeadModel" and len(one.tokenizer) == 32
    (copy / "vocab.json").write_text('{"b": 0}')
    assert HuggingFaceFolder.parse(f"hf:{copy}").tokenizer_digest() not in ("", one.tokenizer)
    (copy / "vocab.json").unlink()
    assert HuggingFaceFolder.parse(f"hf:{copy}").tokenizer_digest() == ""


def test_weights_that_would_be_random_are_refused(saved):
    with pytest.raises(
        ModelError, match=r"lacks 1 weights of a GPT2ForSequence\w+, which would be random: score"
    ):
        Teacher(f"hf:{saved}#GPT2ForSequenceClassification", CPU)


@pytest.mark.parametrize(
    ("config", "mark", "error", "says"),
    [
        (None, "", ConfigError, "it has no config.json. Name a folder that save_pretrained has written"),
        ("{", "", ConfigError, "config.json cannot be read"),
        ("[]", "", ConfigError, "config.json cannot be read"),
        ({}, "", ConfigError, "names no architectures. Say which class .*#AutoModelForCausalLM"),
        ({"architectures": 3}, "", ConfigError, "config.json cannot be read|names no architectures"),
        ({"architectures": []}, "", ConfigError, "names no architectures"),
        ({}, "#", ConfigError, "behind # goes a class"),
        ({}, "#a.b", ConfigError, "behind # goes a class"),
        ({"architectures": ["MineForever"]}, "", ModelError, "no model class 'MineForever'"),
        ({"architectures": ["pipeline"]}, "", ModelError, "no model class 'pipeline'"),
        ({"architectures": ["AutoTokenizer"]}, "", ModelError, "no model class 'AutoTokenizer'"),
        (
            {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
            "",
            ModelError,
            "cannot be loaded as GPT2",
        ),
    ],
)
def test_a_folder_that_holds_no_model_says_what_it_lacks(tmp_path, config, mark, error, says):
    if config is not None:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(error, match=says):
        Teacher(f"hf:{tmp_path}{mark}", CPU)


def test_a_folder_that_is_not_there_is_no_name_on_a_hub():
    with pytest.raises(ConfigError, match="model hf:openai/gpt2: no such folder.*nothing is downloaded"):
        Teacher("hf:openai/gpt2", CPU)


@pytest.mark.parametrize("name", ["trust_remote_code", "local_files_only"])
def test_neither_code_nor_downloads_can_be_asked_for(saved, name):
    with pytest.raises(ConfigError, match=f"{name} is not for you to choose"):
        Teacher(f"hf:{saved}", CPU, kwargs={name: True})


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_sequences_are_labelled_as_if_each_were_alone(tmp_path, kind):
    torch.manual_seed(0)
    if kind == "causal":
        model = gpt2()
    else:
        config = transformers.BertConfig(
            num_hidden_layers=1,
            hidden_size=8,
            num_attention_heads=2,
            intermediate_size=8,
            vocab_size=20,
            max_position_embeddings=16,
        )
        model = transformers.BertForTokenClassification(config).eval()
    model.save_pretrained(tmp_path)
    sequences = [[3, 4, 5], [6], [7, 8, 9, 10], [11, 12, 13]]
    rows = {
        "input_ids": torch.tensor([token for sequence in sequences for token in sequence]),
        MARKS: torch.tensor(
            [ASKED | (FIRST if at == 0 else 0) for sequence in sequences for at in range(len(sequence))],
            dtype=torch.uint8,
        ),
    }
    teacher = Teacher(f"hf:{tmp_path}", CPU)
    marks = rows.pop(MARKS).numpy()
    got = label_sequences(teacher, rows, marks, 100, fixed=False)["logits"]
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([sequence])).logits[0] for sequence in sequences]
    torch.testing.assert_close(got, torch.cat(alone))
    rows["input_ids"] = torch.zeros(17, dtype=torch.int64)
    marks = torch.tensor([3] + [2] * 16, dtype=torch.uint8).numpy()
    with pytest.raises(ContractError, match="context of 16 tokens, and sequence 0 of the task has 17"):
        label_sequences(teacher, rows, marks, 100, fixed=False)


def test_the_context_of_a_roberta_is_what_it_can_take(tmp_path):
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    config = transformers.RobertaConfig(**small, vocab_size=20, max_position_embeddings=18)
    transformers.RobertaModel(config).eval().save_pretrained(tmp_path)
    teacher = Teacher(f"hf:{tmp_path}", CPU)
    assert teacher.context == 16 and teacher.tokens is None
    teacher({"input_ids": torch.full((1, teacher.context), 5)})
    with pytest.raises(ModelError):
        teacher({"input_ids": torch.full((1, teacher.context + 1), 5)})


def test_the_tokens_of_a_folder_are_those_of_its_tokenizer(saved):
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["<unk>", "a", "b"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    fast.save_pretrained(saved)
    teacher = Teacher(f"hf:{saved}", CPU)
    assert teacher.tokens is not None and teacher.tokens.texts == ["<unk>", "a", "b", "<pad>"]
    assert teacher.tokens.mark == tokens_of(fast).mark == tokens_of(saved).mark
    (saved / "other").write_text("x\ny\n")
    (saved / "other").rename(saved / "other.txt")
    assert Teacher(f"hf:{saved}", CPU, vocabulary=str(saved / "other.txt")).tokens.texts == ["x", "y"]


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        ("topk:21", "keeps K=21 entries, and output 'logits' of the model .* has 20: lower K to 20"),
        ("hidden", "no model of transformers has one. Write a factory"),
    ],
)
def test_a_codec_that_a_folder_cannot_serve_is_said_at_the_start(saved, codec, says):
    options = WorkerOptions(coordinator="tcp://127.0.0.1:1", model=f"hf:{saved}", codec=codec, device="cpu")
    with pytest.raises(UnfitCodecError, match=says):
        TeacherWorker(options, load_teacher(options), MemoryTransport())


def test_ids_that_are_no_integers_are_named_in_one_line(saved):
    teacher = Teacher(f"hf:{saved}", CPU)
    forward = Forward(teacher, parse_codec("topk:3"))
    with pytest.raises(ContractError) as caught:
        forward({"input_ids": IDS.float(), "attention_mask": torch.ones_like(IDS)}, PassTerms())
    said = str(caught.value)
    assert "input_ids float32[2, 3]" in said and "int64 or int32" in said and "\n" not in said
    assert "attention_mask" not in said
    packed = {
        "input_ids": IDS.reshape(-1).half(),
        MARKS: torch.tensor([FIRST | ASKED, ASKED, ASKED] * 2).byte(),
    }
    with pytest.raises(ContractError, match=r"input_ids float16\[6\]"):
        forward(packed, PassTerms())
