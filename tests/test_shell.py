"""What a person at a terminal meets: help, mistakes, short names, files that are named, and Ctrl-C."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import unmask
from unmask import codec, recipes
from unmask.command_line import catalogue, choosing
from unmask.command_line.app import main
from unmask.command_line.arguments import help as helping
from unmask.command_line.arguments.parsing import options_of, parse
from unmask.models import shipped

pytest.importorskip("numba")
pytestmark = pytest.mark.global_random  # training seeds torch's generator

SMALL = [
    *("--network.width=16", "--network.depth", "1", "--network.loops", "1", "--network.heads", "2"),
    *("--network.hidden", "32", "--batch-size", "8", "--machine.compile", "false", "--quiet"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "sudoku", "--out", str(folder), *SMALL, "--optimiser.steps", "2"]) == 0
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command in this process: exit code, standard output, standard error."""

    def call(*words):
        capsys.readouterr()
        code = main([str(w) for w in words])
        return code, *capsys.readouterr()

    return call


# --- help -------------------------------------------------------------------------------------------


def test_the_names_in_help_are_those_that_exist():
    assert tuple(recipes.all_recipes()) == helping.RECIPES
    assert tuple(order.name for order in codec.ORDERS) == helping.CODED
    assert helping.shipped() == shipped()
    assert list(catalogue.ORDERS) == list(choosing.BUILD)


@pytest.mark.parametrize("name", [name for name in helping.COMMANDS if name != "data"])
def test_examples_are_commands(name):
    lines = helping.EXAMPLES[name]
    assert lines
    for line in lines:
        for part in line.split(" | "):
            words = shlex.split(part.split(" > ")[0])
            assert words[0] == "unmask"
            assert callable(parse(words[1:]))
    assert any(line.startswith(f"unmask {name}") for line in lines)


@pytest.mark.parametrize("name", helping.COMMANDS)
def test_help_shows_examples_and_what_can_be_named(name, run):
    code, text, _ = run(*name.split(), "--help")
    assert code == 0
    assert all(line in text for line in helping.EXAMPLES[name])
    told = re.sub(r"\s+", " ", text)
    if name in helping.TAKES_MODEL:
        assert f"models: {', '.join(shipped())}" in told
    if name == "train":
        assert f"recipes: {', '.join(recipes.all_recipes())}" in told
    if name in ("sample", "eval"):
        assert ", ".join(catalogue.ORDERS) in told


@pytest.mark.parametrize("name", ["", *helping.COMMANDS])
def test_help_does_not_load_torch(name):
    words = f"import sys; from unmask.command_line.app import main; main({[*name.split(), '--help']!r}); "
    words += "print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sample", "--num --device --threads --batch-size"),
        ("eval", "--num --device --threads --batch-size"),
        ("profile", "--num --device --threads --batch-size"),
        ("tune", "--num --device --threads --batch-size"),
        ("compress", "--threads --batch --batch-size"),
        ("decompress", "--threads --batch --batch-size"),
        ("demo", "--num --threads --batch-size"),
        ("judge", "--num --threads"),
        ("train", "--threads"),
    ],
)
def test_common_names_are_on_every_command_where_they_mean_something(name, options, run):
    told = run(name, "--help")[1]
    assert all(re.search(rf"{option}\b", told) for option in options.split())
    assert ("-n N, --num" in told) == ("--num" in options)


def test_options_come_in_groups(run):
    told = run("sample", "--help")[1]
    titles = [told.index(f"{title} options") for title in ("order", "machine", "output")]
    assert titles == sorted(titles)
    assert titles[0] < told.index("--order NAME") < titles[1] < told.index("--device") < titles[2]


def test_no_colours_where_they_are_not_wanted(tmp_path):
    pty = pytest.importorskip("pty")
    for wanted, variables in ((False, {"NO_COLOR": "1"}), (True, {})):
        variables = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | variables | {"TERM": "xterm"}
        reader, writer = pty.openpty()
        words = [sys.executable, "-m", "unmask", "orders", "--help"]
        done = subprocess.Popen(words, stdout=writer, stderr=writer, env=variables)
        os.close(writer)
        found = b""
        try:
            while piece := os.read(reader, 4096):
                found += piece
        except OSError:  # Linux says so at the end
            pass
        os.close(reader)
        assert done.wait() == 0
        assert (b"\x1b[" in found) == wanted


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell, run):
    code, text, err = run("completion", shell)
    assert (code, err) == (0, "")
    assert "unmask" in text
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


# --- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("sample sudoku --nmu 3", "no option --nmu: did you mean --num? see `unmask sample --help`"),
        ("sample sudoku --batch-siez=3", "no option --batch-siez=3: did you mean --batch-size?"),
        ("doctor --jsno", "no option --jsno: did you mean --json? see `unmask doctor --help`"),
        ("data fetch --lst", "did you mean --list? see `unmask data fetch --help`"),
        ("compres text a", "no command 'compres': did you mean compress? see `unmask --help`"),
        ("data prepra x", "no command 'data prepra': did you mean prepare? see `unmask data --help`"),
        ("sample sudoku twice", "unexpected 'twice' after unmask sample; see `unmask sample --help`"),
        ("sample", "missing MODEL"),
        ("demo --num x", "see `unmask demo --help`"),
        ("plan p.json --steps", "see `unmask plan --help`"),
        ("compress text", "missing"),
        ("compress text -o x", "nothing to compress"),
        ("sample sudoku --threads 0", "--threads 0: expected at least 1"),
        ("sample sudoku --batch-size 0", "--batch-size 0: expected at least 1"),
        ("sample sudoku --device abacus", "no device 'abacus' here"),
        ("eval sudoku --generate 34 --device abacus", "no device 'abacus' here"),
        ("profile sudoku --device abacus", "no device 'abacus' here"),
        ("train sudoku --device abacus", "no device 'abacus' here"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_help_is(words, told, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("unmask: ")
    assert err.count("\n") == 1
    assert told in err
    assert not list(tmp_path.iterdir())


def test_every_option_is_known_to_the_hints():
    assert {"--num", "--order", "--device", "--out", "--json", "--top-p"} <= set(options_of("sample"))


# --- the machine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["margin", "random", "low-confidence", "remdm"])
def test_batches_and_threads_change_nothing(order, trained, run):
    words = ("sample", trained, "-n", 5, "--order", order, "--json", "--quiet")
    words += ("--plan", 27) if order != "remdm" else ("--steps", 4)
    found = [
        json.loads(run(*words, *more)[1])
        for more in ((), ("--batch-size", 2), ("--threads", 1), ("--batch", 5, "--device", "cpu"))
    ]
    assert len({tuple(s["text"] for s in report["samples"]) for report in found}) == 1
    assert [report["manifest"]["batch"] for report in found] == [64, 2, 64, 5]
    assert [len(report["manifest"]["batch_seeds"]) for report in found] == [1, 3, 1, 1]


def test_batches_of_eval_and_profile_change_nothing(trained, run, tmp_path):
    words = ("eval", trained, "--generate", 78, "-n", 5, "--samples", 2, "--json", "--quiet")
    one, other = (json.loads(run(*words, "--batch-size", size)[1]) for size in (5, 2))
    for name in ("nelbo", "nelbo_given_clues"):
        assert one[name]["value"] == pytest.approx(other[name]["value"], abs=1e-4)
    words = ("profile", trained, "-n", 200, "--rounds", 1, "--json", "--quiet", "-o")
    one, other = (
        json.loads(run(*words, tmp_path / f"{size}.json", "--batch-size", size)[1]) for size in (50, 7)
    )
    assert one["bound"] == pytest.approx(other["bound"], abs=1e-3)


def test_threads_are_set_while_a_command_runs(trained, monkeypatch, run):
    import torch

    from unmask.command_line.commands import sample as command

    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(command, "run", lambda *_, **__: seen.append(torch.get_num_threads()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sample", str(trained), "--threads", str(before + 1)])
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_device_is_short_for_a_recipes_field(run):
    assert "--machine.device" in run("train", "sudoku", "--fields")[1]
    assert "no device 'abacus'" in run("train", "sudoku", "--device=abacus")[2]


# --- what is said -----------------------------------------------------------------------------------


def test_written_files_are_named(trained, run, tmp_path):
    profile, plan, plot = (tmp_path / name for name in ("p.json", "plan.json", "p.svg"))
    code, _, err = run("profile", trained, "-n", 200, "--rounds", 1, "-o", profile)
    assert (code, f"wrote {profile}" in err) == (0, True)
    code, _, err = run("plan", profile, "--steps", 4, "-o", plan)
    assert (code, err) == (0, f"wrote {plan}\n")
    report = json.loads(run("plan", profile, "--steps", 4, "-o", plan, "--json", "--quiet")[1])
    assert report["file"] == str(plan)
    pytest.importorskip("matplotlib")
    assert f"wrote {plot}" in run("plan", profile, "--steps", 4, "-o", plan, "--plot", plot)[2]


def test_compress_says_what_it_takes_a_file_for(run, tmp_path):
    cases = {
        "a.txt": (
            b"one two\nthree\n",
            (),
            "2 lines of text, taken as one item; with --lines each line is one",
        ),
        "a.jsonl": (b'{"a": 1}\n{"b": 2}\n', (), "2 JSON lines, taken as one item; with --jsonl"),
        "b.jsonl": (b"no json\n", ("--jsonl",), "line 1 is no JSON object or list; taken as lines of text"),
        "b.bin": (b"a\0b\nc", ("--lines",), "looks binary"),
        "one.txt": (b"one line\n", (), None),
        "c.bin": (b"a\0b\nc", (), None),
    }
    for name, (data, words, told) in cases.items():
        source, out = tmp_path / name, tmp_path / "out.umz"
        source.write_bytes(data)
        code, text, err = run("compress", "records", source, "-o", out, *words)
        assert code == 0
        said = [line for line in err.splitlines() if name in line]
        assert (told in said[0]) if told else not said
        assert f"larger than its source: {out.stat().st_size} bytes for" in err
        assert "nan" not in (text + err).lower()
        assert run("compress", "records", source, "-o", out, *words, "--quiet")[2] == ""


def test_an_empty_file_compresses_without_a_nan(run, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    out = tmp_path / "out.umz"
    for words in ((), ("--lines",)):
        code, text, err = run("compress", "records", tmp_path / "empty", "-o", out, *words)
        assert code == 0
        assert "nan" not in (text + err).lower()
        assert "nan" not in run("inspect", out)[1].lower()


def test_kinds_exclude_each_other(run, tmp_path):
    (tmp_path / "a").write_bytes(b"a\n")
    words = ("compress", "records", tmp_path / "a", "-o", tmp_path / "o")
    assert "--lines with --jsonl; expected one of them" in run(*words, "--lines", "--jsonl")[2]
    assert not (tmp_path / "o").exists()


# --- Ctrl-C -----------------------------------------------------------------------------------------


def processor_seconds(process, began):
    """Processor time of a process so far; seconds since it began where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic() - began
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stopped(words, after, folder, until=None):
    """Starts a command, sends SIGINT to it and its children some seconds after ``until`` holds.

    Without ``until`` when it has used so much processor time: on a full machine Python itself takes a while to be there.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "unmask", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env=os.environ | {"PYTHONPATH": str(Path(unmask.__file__).parents[1])},
    )
    began = time.monotonic()
    ready = until or (lambda: processor_seconds(process.pid, began) >= after)
    while not ready() and process.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.02)
    time.sleep(after if until else 0)
    os.killpg(process.pid, signal.SIGINT)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:  # no process is left behind for the tests that follow
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("after", [0.4, 1.5, 4.0])
def test_ctrl_c_anywhere_is_one_line(after, tmp_path):
    code, _, err = stopped(["sample", "sudoku", "-n", "4000", "--quiet"], after, tmp_path)
    assert (code, err) == (130, "unmask: stopped\n")


def alone(code, words=None, path=()):
    """What some lines, or a command, do in a Python of their own where Ctrl-C is Python's own: code, output, errors."""
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    run = ["-c", start + code] if words is None else ["-m", "unmask", *words]
    places = os.pathsep.join([*map(str, path), str(Path(unmask.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, *run],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": places},
        timeout=100,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    return done.returncode, done.stdout, done.stderr


SWALLOWS = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
"""
FALLS = """
import signal
class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Late()
"""


def test_ctrl_c_while_torch_is_loaded_cannot_be_lost(tmp_path):
    (tmp_path / "torch.py").write_text(SWALLOWS)
    assert alone("", ["orders"], [tmp_path]) == (130, "", "unmask: stopped\n")


def test_ctrl_c_while_the_command_is_loaded_cannot_be_lost(tmp_path):
    (tmp_path / "tyro.py").write_text(SWALLOWS)
    assert alone("", ["--version"], [tmp_path]) == (130, "", "unmask: stopped\n")


def test_ctrl_c_that_falls_into_a_finaliser_comes_again(tmp_path):
    # an order's words are read after torch was loaded: the finaliser runs in the midst of the command
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("")
    (tmp_path / "rich" / "console.py").write_text(FALLS + "import time\ntime.sleep(90)\n")
    began = time.monotonic()
    code, out, err = alone("", ["orders"], [tmp_path])
    assert (code, out, err) == (130, "", "unmask: stopped\n")
    assert time.monotonic() - began < 80  # the sleep was cut short


def test_what_else_a_finaliser_raises_is_told_as_ever():
    code = """
from unmask.command_line.arguments.interrupts import own_process
told = []
sys.unraisablehook = told.append
own_process()
class Broken:
    def __del__(self):
        raise ValueError("told")
Broken()
print(len(told))
"""
    assert alone(code) == (0, "1\n", "")


@pytest.mark.parametrize("own", [False, True])
def test_a_callers_ctrl_c_is_left_alone(own):
    """In a process that is not the command's, and beside a handler of one's own."""
    mine = 'signal.signal(signal.SIGINT, lambda *_: print("mine"))'
    code = f"""
from unmask.command_line.arguments.interrupts import at_once, own_process
{"own_process(); " + mine if own else ""}
try:
    with at_once():
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("raised")
"""
    assert alone(code) == (0, "mine\n" if own else "raised\n", "")


@pytest.mark.parametrize("after", [0.0, 3.0])
def test_ctrl_c_while_training_starts_is_one_line(after, tmp_path):
    words = ["train", "sudoku", "--out", "run", *SMALL[:-3], "--machine.compile", "true", "--quiet"]
    begun = tmp_path / "run"
    code, _, err = stopped(words, after, tmp_path, until=begun.exists)
    assert code == 130
    assert err.startswith("unmask: stopped")
    assert err.count("\n") == 1
