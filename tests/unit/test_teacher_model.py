"""A teacher loads or says why not, runs its model as a teacher, and checks what comes out."""

from __future__ import annotations

import pickle
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edldist.errors import ConfigError, ModelError
from edldist.teacher.model.teacher import Teacher, is_out_of_memory, pick_device, refuse_nonfinite
from edldist.wire.tensors import DTYPES
from tests.models import Linear

CPU = torch.device("cpu")
IDS = {"id": torch.arange(4)}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes an importable module and returns its name."""
    made = []

    def write(source: str) -> str:
        name = f"teacher_module_{tmp_path.name}_{len(made)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        made.append(name)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["tests.models", "tests.models:", ":identify", ""])
def test_a_malformed_path_is_a_config_error(path):
    with pytest.raises(ConfigError, match="module:factory"):
        Teacher(path, CPU)


@pytest.mark.parametrize("path", ["no_such_module:f", "no_such_package.part:f", "tests.models.deeper:f"])
def test_a_module_that_is_not_there_says_where_it_was_looked_for(path):
    with pytest.raises(ModelError, match="no module named 'no_such|no module named 'tests.models.deeper"):
        Teacher(path, CPU)


def test_a_missing_dependency_shows_the_import_that_failed(module):
    name = module("import a_dependency_nobody_has\n")
    with pytest.raises(ModelError, match="cannot be imported") as caught:
        Teacher(f"{name}:f", CPU)
    assert "import a_dependency_nobody_has" in str(caught.value)
    assert "frozen importlib" not in str(caught.value)


def test_a_module_that_raises_on_import_shows_its_line(module):
    name = module("def f():\n    return 1 / 0\n\nf()\n")
    with pytest.raises(ModelError, match=r"return 1 / 0[\s\S]*ZeroDivisionError"):
        Teacher(f"{name}:f", CPU)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_factory", "tests.models has no 'no_such_factory'"),
        ("NOT_CALLABLE", "NOT_CALLABLE is a int"),
        ("returns_no_callable", "the factory returned a int"),
        ("raises_on_load", r"raise RuntimeError[\s\S]*broken on purpose"),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(factory, message):
    with pytest.raises(ModelError, match=message) as caught:
        Teacher(f"tests.models:{factory}", CPU)
    assert "teacher/model/teacher.py" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, r"f cannot be called without arguments: missing .*'path'; it takes \(path, size=3\)"),
        ({"pth": "x"}, r"f cannot be called with pth: missing .*'path'"),
        ({"path": "x", "sise": 1}, "with path, sise: got an unexpected keyword argument 'sise'"),
    ],
)
def test_a_factory_that_wants_other_arguments_says_how_to_give_them(module, kwargs, says):
    name = module("def f(path: str, size: int = 3):\n    return lambda id: id * size\n")
    with pytest.raises(ModelError, match=says + r".*kwargs: \{name: value\} .*--model-arg name=value"):
        Teacher(f"{name}:f", CPU, kwargs=kwargs)
    assert Teacher(f"{name}:f", CPU, kwargs={"path": "x", "size": 2})(IDS)["logits"].tolist() == [0, 2, 4, 6]


def test_a_module_runs_in_eval_and_inference_mode():
    teacher = Teacher("tests.models:Linear", CPU)
    x = torch.randn(5, 4)
    first, second = teacher({"x": x})["logits"], teacher({"x": x})["logits"]
    assert torch.equal(first, second)
    assert first.is_inference()


def test_digits_are_positional_arguments_in_order(module):
    name = module("def f():\n    return lambda a, b, *, scale: (a - b) * scale\n")
    inputs = {"1": torch.ones(2), "scale": torch.full((2,), 3.0), "0": torch.full((2,), 5.0)}
    assert Teacher(f"{name}:f", CPU)(inputs)["logits"].tolist() == [12.0, 12.0]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("nested", [False, True])
def test_weights_are_loaded(tmp_path, suffix, nested):
    source = Linear()
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": source.state_dict()} if nested else source.state_dict(), file)
    else:
        save_file(source.state_dict(), file)
    x = torch.randn(3, 4)
    labels = Teacher("tests.models:Linear", CPU, str(file))({"x": x})["logits"]
    torch.testing.assert_close(labels, source.layer(x))


def test_weights_that_are_missing_wrong_or_for_no_module_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        Teacher("tests.models:Linear", CPU, str(tmp_path / "none.pt"))
    wrong = tmp_path / "wrong.safetensors"
    save_file({"layer.weight": torch.zeros(3, 4), "extra": torch.zeros(1)}, wrong)
    with pytest.raises(ModelError, match=r"do not fit[\s\S]*layer.bias[\s\S]*extra"):
        Teacher("tests.models:Linear", CPU, str(wrong))
    with pytest.raises(ModelError, match="not an nn.Module"):
        Teacher("tests.models:identify", CPU, str(wrong))
    for name in ("broken.safetensors", "broken.pt"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ModelError, match="cannot be read"):
            Teacher("tests.models:Linear", CPU, str(tmp_path / name))


class _Evil:
    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_weights_file_that_would_run_code_is_refused(tmp_path, zipped):
    target, file = tmp_path / "owned", tmp_path / "evil.pt"
    if zipped:
        torch.save({"layer.weight": _Evil(target)}, file)
    else:
        file.write_bytes(pickle.dumps(_Evil(target)))
    with pytest.raises(ModelError, match="cannot be read"):
        Teacher("tests.models:Linear", CPU, str(file))
    assert not target.exists()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("id[:-1]", r"'logits'.*\[3\] for 4 samples"),
        ("id.sum()", r"'logits'.*\[\] for 4 samples"),
        ("'labels'", "returned a str"),
        ("{}", "non-empty dict"),
        ("(id, id)", "returned a tuple"),
        ("None", "returned a NoneType"),
        ("{'x': 3}", "'x': int"),
        ("{0: id}", "string names"),
        ("{'x': id, 'y': id[:2]}", r"'y'.*\[2\] for 4 samples"),
    ],
)
def test_outputs_that_are_no_labels_are_refused(module, returned, message):
    name = module(f"def f():\n    return lambda id: {returned}\n")
    with pytest.raises(ModelError, match=message):
        Teacher(f"{name}:f", CPU)(IDS)


def test_a_model_that_raises_shows_its_own_traceback_only():
    with pytest.raises(ModelError, match=r"tests.models:raises_on_13 raised:\nTraceback") as caught:
        Teacher("tests.models:raises_on_13", CPU)({"id": torch.tensor([13])})
    assert "sample 13 is poison on purpose" in str(caught.value)
    assert "models.py" in str(caught.value) and "teacher/model/teacher.py" not in str(caught.value)


def test_a_model_that_cannot_be_moved_is_a_model_error(module):
    name = module(
        """
        from torch import nn

        class Stuck(nn.Module):
            def to(self, *args, **kwargs):
                raise RuntimeError("no room on purpose")
        """
    )
    with pytest.raises(ModelError, match=r"cannot be moved to cpu[\s\S]*no room on purpose"):
        Teacher(f"{name}:Stuck", CPU)


def test_a_dict_of_outputs_keeps_names_and_dtypes():
    outputs = Teacher("tests.models:several_outputs", CPU)(IDS)
    assert {name: tensor.dtype for name, tensor in outputs.items()} == {
        "logits": torch.float32,
        "feature": torch.bfloat16,
        "index": torch.int32,
    }


def test_devices_are_picked_or_refused():
    assert pick_device("cpu") == CPU
    assert isinstance(pick_device("auto"), torch.device)
    for device in ("gpu9", "cuda:99", ""):
        with pytest.raises(ConfigError, match="cannot be used here"):
            pick_device(device)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_non_finite_label_is_refused_with_its_sample(bad, dtype):
    labels = torch.zeros(5, 2, 3, dtype=dtype)
    refuse_nonfinite({"x": labels, "n": torch.ones(5).int(), "none": torch.ones(0)})
    labels[3, 1, 0] = bad
    with pytest.raises(ModelError, match=r"'x'.*1 of 5 rows.*sample 3"):
        refuse_nonfinite({"x": labels})
    with pytest.raises(ModelError, match="sample 1 "):
        refuse_nonfinite({"x": torch.tensor([0.0, bad])})


@pytest.mark.parametrize("dtype", [dtype for name, dtype in DTYPES.items() if name.startswith("float8")])
def test_float8_labels_are_checked_too(dtype):
    labels = torch.tensor([[1.0], [torch.nan]]).to(dtype)
    refuse_nonfinite({"x": labels[:1]})
    with pytest.raises(ModelError, match="sample 1 "):
        refuse_nonfinite({"x": labels})


def test_an_unused_module_class_is_a_factory_too():
    assert isinstance(Teacher("torch.nn:Identity", CPU)._model, nn.Identity)


class Conv(nn.Module):
    """Remembers how its input lay in memory."""

    seen: list[bool] = []

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x, offset=None):
        if not torch.compiler.is_compiling():
            self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        pooled = self.conv(x).mean((2, 3))
        return pooled if offset is None else pooled + offset


@pytest.fixture
def conv(monkeypatch):
    """The path of a convolution's factory."""
    import tests.models

    monkeypatch.setattr(tests.models, "Conv", Conv, raising=False)
    monkeypatch.setattr(Conv, "seen", [])
    return "tests.models:Conv"


def test_channels_last_lays_out_weights_and_images_and_changes_no_label(conv):
    x = torch.randn(4, 3, 8, 8)
    teacher = Teacher(conv, CPU, channels_last=True)
    assert teacher._model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    offset = torch.ones(4, 4)
    labels = teacher({"0": x, "offset": offset})["logits"]
    assert Conv.seen == [True]
    torch.testing.assert_close(labels, Teacher(conv, CPU)({"0": x, "offset": offset})["logits"])
    assert Conv.seen == [True, False]


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_computes_and_labels_in_its_type(conv, name, dtype):
    x = torch.randn(2, 3, 8, 8)
    labels = Teacher(conv, CPU, autocast=name)({"0": x})["logits"]
    assert labels.dtype == dtype
    exact = Teacher(conv, CPU)({"0": x})["logits"]
    torch.testing.assert_close(labels.float(), exact, rtol=0.05, atol=0.05)
    assert not torch.is_autocast_enabled("cpu")


def test_an_autocast_that_is_none_or_not_possible_is_refused(conv, monkeypatch):
    with pytest.raises(ConfigError, match="autocast 'fp32': use bf16 or fp16"):
        Teacher(conv, CPU, autocast="fp32")
    with pytest.raises(ConfigError, match="autocast bf16 cannot be used on meta"):
        Teacher(conv, torch.device("meta"), autocast="bf16")


@pytest.fixture
def compiler(monkeypatch):
    """Counts what torch.compile compiles, without waiting for a C++ compiler."""
    from torch._dynamo.testing import CompileCounter

    counter, real = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend=counter))
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


def test_one_compilation_serves_every_number_of_samples(compiler):
    teacher = Teacher("tests.models:Linear", CPU, compiled=True)
    for samples in (7, 64, 3, 20, 33):
        x = torch.randn(samples, 4)
        torch.testing.assert_close(teacher({"x": x})["logits"], teacher({"x": x}, fixed=True)["logits"])
    assert compiler.frame_count == 1
    teacher({"x": torch.randn(1, 4)})
    assert compiler.frame_count <= 2


def test_fixed_passes_do_not_use_the_compiled_model(conv, compiler):
    x = torch.randn(5, 3, 8, 8)
    teacher = Teacher(conv, CPU, compiled=True)
    labels = teacher({"0": x}, fixed=True)["logits"]
    assert compiler.frame_count == 0
    assert torch.equal(labels, Teacher(conv, CPU)({"0": x})["logits"])


@pytest.mark.parametrize("offset", range(0, 64, 4))
def test_fixed_passes_do_not_depend_on_where_a_message_begins(offset):
    torch.manual_seed(0)
    x = torch.randn(16, 64)
    raw = torch.zeros(x.nbytes + 128, dtype=torch.uint8)
    at = -raw.data_ptr() % 64 + offset
    placed = raw[at : at + x.nbytes].view(torch.float32).view(16, 64).copy_(x)
    teacher = Teacher("torch.nn:Identity", CPU)
    seen: list[int] = []
    layer = torch.nn.Linear(64, 10).eval()  # its products differ with the alignment of its input
    teacher._model = lambda x: (seen.append(x.data_ptr() % 64), layer(x))[1]
    assert torch.equal(teacher({"x": placed}, fixed=True)["logits"], teacher({"x": x}, fixed=True)["logits"])
    teacher({"x": placed})
    assert seen == [0, 0, offset]  # and nothing is copied where it need not be


def test_a_model_that_cannot_be_compiled_says_how_to_go_without(conv, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here on purpose")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend=broken))
    torch._dynamo.reset()
    with pytest.raises(ModelError, match=r"cannot be compiled here; .*--no-compile[\s\S]*on purpose"):
        Teacher(conv, CPU, compiled=True)({"0": torch.randn(2, 3, 8, 8)})
    torch._dynamo.reset()


@pytest.mark.parametrize("option", [{"compiled": True}, {"autocast": "bf16"}, {"channels_last": True}])
def test_options_of_modules_are_refused_for_other_callables(option):
    with pytest.raises(ModelError, match="tests.models:identify made a function, not an nn.Module"):
        Teacher("tests.models:identify", CPU, **option)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("sizes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_lack_of_memory_reaches_the_caller_as_it_is():
    teacher = Teacher("tests.models:identify", CPU)
    for error in (torch.OutOfMemoryError("device"), RuntimeError("DefaultCPUAllocator: host")):

        def model(id, error=error):  # noqa: A002
            raise error

        teacher._model = model
        with pytest.raises(type(error)) as caught:
            teacher(IDS)
        assert caught.value is error


def test_an_allocation_that_no_host_can_serve_is_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
