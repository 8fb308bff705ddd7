"""The doctor: what it finds on machines that lack something, and that no failure ends it."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.data.catalog import CATALOG
from vlc.workflows.doctor import checkpoints, command, data, machine, network, packages, storage, torch_process
from vlc.workflows.doctor.__main__ import main
from vlc.workflows.doctor.finding import Asked, Finding
from vlc.workflows.doctor.torch_process import Answer

CPU = {"version": "2.13.0", "cuda": None, "threads": 2, "gpus": [], "architectures": [], "mps": False}
CPU |= {"torchvision_operators": True, "cpu_bfloat16": False}
GPU = {"name": "H200", "capability": "9.0", "free": 140e9, "memory": 150e9, "bfloat16": True, "flash_attention": True}
GPU |= {"failure": ""}


@pytest.fixture
def answered(monkeypatch):
    """A function that has torch answer with these facts, beside those of a CPU."""

    def answered(failure: str = "", **facts) -> None:
        answer = Answer({}, failure) if failure else Answer(CPU | facts)
        monkeypatch.setattr(torch_process, "answer", lambda question: answer)
        monkeypatch.setattr(torch_process, "start", lambda question: None)

    answered()
    return answered


def found(probe, level: str, **asked) -> list[Finding]:
    return [finding for finding in probe(Asked(**asked)) if finding.level == level]


class TestPackages:
    @pytest.fixture
    def repository(self, tmp_path, monkeypatch):
        (tmp_path / "pyproject.toml").write_text(
            '[project]\ndependencies = ["numpy>=1.26", "one>=2"]\n[project.optional-dependencies]\nserve = ["two<3"]\n'
        )
        (tmp_path / "requirements.txt").write_text('one==2.1  # pinned\nzero==1; python_version < "3"\n')
        (tmp_path / "constraints.txt").write_text("three!=4.5.6\n")
        monkeypatch.setattr(packages, "ROOT", tmp_path)
        versions = {"numpy": "2.0", "one": "2.1", "two": "2.9", "three": "4.5.5"}
        monkeypatch.setattr(packages, "_installed", versions.get)
        return versions

    needs_tomllib = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot read pyproject.toml")

    @needs_tomllib
    def test_what_fits(self, repository):
        assert {finding.level for finding in packages.probe(Asked())} == {"ok"}

    @needs_tomllib
    @pytest.mark.parametrize(
        ("name", "version", "level", "text"),
        [
            ("one", None, "problem", "not installed: one"),
            ("one", "1.9", "problem", "one 1.9 is installed; vlc needs >=2"),
            ("one", "2.2", "note", "one 2.2 is installed; the tests are run with 2.1"),
            ("two", None, "note", "extra serve is not complete: two is absent"),
            ("two", "3.0", "note", "extra serve is not complete: two 3.0"),
            ("three", "4.5.6", "problem", "three 4.5.6 is a release that carried malicious code"),
        ],
    )
    def test_what_does_not_fit(self, repository, name, version, level, text):
        repository[name] = version
        lines = found(packages.probe, level)
        assert any(line.text.startswith(text) and line.cure for line in lines), lines

    def test_an_installed_package_reads_its_metadata(self, monkeypatch, tmp_path):
        monkeypatch.setattr(packages, "ROOT", tmp_path)
        monkeypatch.setattr(packages, "_installed", lambda name: "1.0")
        lines = ["numpy>=1.26", 'faiss-cpu<2,>=1.8; extra == "search"']
        monkeypatch.setattr(packages, "requires", lambda name: lines)
        assert {name: len(some) for name, some in packages._declared().items()} == {"": 1, "search": 1}

    def test_what_training_imports(self, answered):
        assert "precision=16 is float32" in found(packages.probe_training, "ok")[1].text
        answered(failure="ImportError: no timm")
        assert "no timm" in found(packages.probe_training, "problem")[0].text


class TestMachine:
    def test_a_container_with_little(self, answered, tmp_path, monkeypatch):
        answered(threads=16)
        (tmp_path / "cpuinfo").write_text(
            "processor : 0\nmodel name : Old\nflags : sse4\n\nprocessor : 1\nflags : avx2\n"
        )
        (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 9000000 kB\n")
        (tmp_path / "cpu.max").write_text("200000 100000\n")
        (tmp_path / "memory.max").write_text("2000000000\n")
        monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(machine, "_CGROUP", tmp_path)
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        slow, threads, memory = found(machine.probe_processor, "note")
        assert "no AVX2" in slow.text
        assert (threads.text, threads.cure) == ("torch computes with 16 threads on 2 cores", "export OMP_NUM_THREADS=2")
        assert memory.text.startswith("2 GB of memory")

    def test_this_machine(self, answered):
        assert found(machine.probe_processor, "ok")
        assert not found(machine.probe_processor, "problem")

    @pytest.mark.parametrize(
        ("facts", "driver", "level", "text"),
        [
            ({}, [], "ok", "no GPU"),
            ({}, ["H200, driver 580"], "problem", "it is built for the CPU"),
            ({"cuda": "13.0"}, ["K80, driver 470"], "problem", "which this driver may be too old for"),
            ({"cuda": "13.0", "gpus": [GPU]}, ["H200"], "ok", "capability 9.0, bfloat16, flash attention"),
            (
                {"gpus": [GPU | {"failure": "no kernel image"}], "architectures": ["sm_80"]},
                [],
                "problem",
                "code for sm_80",
            ),
            ({"gpus": [GPU | {"free": 10e9}]}, [], "note", "more than half of the memory of GPU 0"),
            ({"torchvision_operators": False}, [], "note", "torchvision's compiled operators"),
            ({"mps": True}, [], "note", "Apple's GPU"),
        ],
    )
    def test_gpus(self, answered, monkeypatch, facts, driver, level, text):
        answered(**facts)
        monkeypatch.setattr(machine, "_of_the_driver", lambda: driver)
        assert any(text in line.text for line in found(machine.probe_gpus, level))


class TestTorchProcess:
    @pytest.fixture(autouse=True)
    def asked_anew(self):
        torch_process.start.cache_clear()
        torch_process.answer.cache_clear()
        yield
        torch_process.start.cache_clear()
        torch_process.answer.cache_clear()

    @pytest.mark.parametrize(
        ("code", "failure"),
        [
            ("raise ImportError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "its process was ended by SIGILL"),
            ("import os; os._exit(3)", "its process ended with status 3"),
            ("import time; time.sleep(60)", "the import had not ended after 1 s"),
        ],
    )
    def test_a_damaged_torch_is_a_sentence(self, tmp_path, monkeypatch, code, failure):
        monkeypatch.setattr(torch_process, "_SECONDS", 1 if "sleep" in code else 60)
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch/__init__.py").write_text(code)
        root = str(Path(__file__).parents[2])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
        assert failure in torch_process.answer("torch").failure
        assert found(machine.probe_gpus, "problem")
        assert found(network.probe_tokenizer, "note")


class TestStorage:
    Usage = namedtuple("Usage", "total used free")

    @pytest.mark.parametrize(("free", "level"), [(5e8, "problem"), (5e9, "note"), (5e10, "ok")])
    def test_room(self, monkeypatch, tmp_path, free, level):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: self.Usage(1e12, 0, free))
        assert any("log_dir" in line.text for line in found(storage.probe, level, log_dir=str(tmp_path / "new/one")))

    def test_a_file_in_place_of_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        assert "is a file" in found(storage.probe, "problem", log_dir=str(tmp_path / "file/run"))[0].text


class TestData:
    def test_every_data_set_is_found(self, arrows):
        named = [line.text.partition(":")[0] for line in found(data.probe, "ok", data_root=str(arrows))]
        assert set(named) == {name for name, spec in CATALOG.items() if not spec.labelled}
        assert not found(data.probe, "problem", data_root=str(arrows))

    @pytest.mark.parametrize(("datasets", "level"), [((), "note"), (("snli_ve",), "problem")])
    def test_a_missing_split_comes_with_its_command(self, arrows, tmp_path, datasets, level):
        for name in ("snli_train", "snli_dev"):
            (tmp_path / f"{name}.arrow").symlink_to(arrows / f"{name}.arrow")
        line = found(data.probe, level, data_root=str(tmp_path), datasets=datasets)[0]
        assert line == Finding(level, "snli_ve: test missing", f"python -m write_arrow snli_ve --out {tmp_path}")

    def test_a_damaged_file(self, arrows, tmp_path):
        (tmp_path / "snli_dev.arrow").write_bytes((arrows / "snli_dev.arrow").read_bytes()[:-100])
        assert "is damaged" in found(data.probe, "problem", data_root=str(tmp_path))[0].text

    def test_no_folder(self, tmp_path):
        assert found(data.probe, "problem", data_root=str(tmp_path / "absent"))
        assert found(data.probe, "note")
        assert "has no data set" in found(data.probe, "note", data_root=str(tmp_path))[0].text
        assert (
            found(data.probe, "problem", data_root=str(tmp_path), datasets=("vqa",))[0].text == "vqa: no split is there"
        )


class TestCheckpoints:
    def test_sound_and_damaged_ones(self, answered, golden, tmp_path):
        sound = golden / "tiny/vqa.ckpt"
        shutil.copy(sound, tmp_path / "sound.ckpt")
        (tmp_path / "cut.ckpt").write_bytes(sound.read_bytes()[:-1000])
        (line,) = found(checkpoints.probe, "ok", load_path=str(tmp_path))
        assert line.text.startswith(f"{tmp_path}/sound.ckpt: layout ")
        (line,) = found(checkpoints.probe, "problem", load_path=str(tmp_path))
        assert f"{tmp_path}/cut.ckpt" in line.text

    def test_none(self, answered, tmp_path):
        assert found(checkpoints.probe, "problem", load_path=str(tmp_path / "absent"))
        assert found(checkpoints.probe, "note", log_dir=str(tmp_path / "absent"))
        assert found(checkpoints.probe, "note", load_path=str(tmp_path))
        answered(failure="no torch")
        assert "torch cannot be imported" in found(checkpoints.probe, "note", load_path=str(tmp_path))[0].text

    def test_more_than_are_opened(self, answered, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoints, "_checkpoint", lambda path: Finding("ok", path.name))
        for number in range(12):
            (tmp_path / f"{number}.ckpt").write_bytes(b"")
        assert len(found(checkpoints.probe, "ok", load_path=str(tmp_path))) == 10
        assert found(checkpoints.probe, "note", load_path=str(tmp_path))[0].text.startswith("2 older checkpoints")


class TestNetwork:
    @pytest.fixture(autouse=True)
    def no_hub(self, monkeypatch, tmp_path):
        for name in (
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "HF_HUB_OFFLINE",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(network, "urlopen", self._refused)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def _refused(self, request, timeout):
        raise OSError("refused")

    def test_a_hub_that_does_not_answer_is_a_note(self):
        assert "does not answer (refused)" in found(network.probe, "note")[0].text

    def test_offline_mode_asks_nobody(self, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(network, "urlopen", lambda *_, **__: pytest.fail("asked"))
        assert "never asked" in found(network.probe, "ok")[0].text

    def test_a_proxy_is_named_without_its_password(self, monkeypatch):
        monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example:3128")
        lines = list(network.probe(Asked()))
        assert lines[0].text == "https goes through the proxy proxy.example"
        assert not any("secret" in line.text for line in lines)
        assert any("NO_PROXY" in line.cure for line in lines)

    def test_absent_certificates(self, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", "/absent.pem")
        assert found(network.probe, "problem")[0].cure == "unset SSL_CERT_FILE"

    def test_tokenizers(self, answered):
        assert "pieces" in found(network.probe_tokenizer, "ok", tokenizer="emoji")[0].text
        line = found(network.probe_tokenizer, "problem", tokenizer="no/such")[0]
        assert line.cure == "hf download no/such --local-dir FOLDER, and tokenizer=FOLDER"


class TestCommand:
    @pytest.fixture(autouse=True)
    def quick(self, answered, monkeypatch):
        probes = {"one": lambda asked: iter([Finding("ok", "fine\x1b[2J"), Finding("note", "half", "mend it")])}
        monkeypatch.setattr(command, "PROBES", probes)

    def test_lines_and_file(self, tmp_path, capsys):
        config, given = resolve_use(out=str(tmp_path / "found.json"))
        command.doctor(config, given)
        printed = capsys.readouterr().out
        assert printed.splitlines() == ["one", "  ok      fine\\x1b[2J", "  note    half", "          -> mend it"]
        written = json.loads((tmp_path / "found.json").read_text())
        assert written["problems"] == 0
        assert written["findings"][1] == {"subject": "one", "level": "note", "text": "half", "cure": "mend it"}

    @pytest.mark.parametrize(
        "error", [UserError("it is broken"), RuntimeError("it is broken"), OSError(5, "it is broken")]
    )
    def test_a_failing_probe_is_a_problem_and_the_others_go_on(self, capsys, error):
        def fails(asked):
            yield Finding("ok", "first")
            raise error

        command.PROBES.update(fails=fails, last=command.PROBES["one"])
        with pytest.raises(UserError, match="1 problem is to be mended"):
            command.doctor(*resolve_use())
        printed = capsys.readouterr().out
        assert "first" in printed
        assert "it is broken" in printed
        assert printed.count("half") == 2

    def test_the_keys_reach_the_probes(self, arrows):
        seen = []
        command.PROBES["asks"] = lambda asked: iter(seen.append(asked) or ())
        command.doctor(*resolve_use("task_finetune_nlvr2_randaug", data_root=str(arrows), datasets="[vqa, gqa]"))
        command.doctor(*resolve_use())
        assert seen[0].datasets == ("vqa", "gqa")
        assert (seen[0].data_root, seen[0].tokenizer) == (str(arrows), None)
        assert seen[1].datasets == (), "the defaults of training need not be there"

    @pytest.mark.parametrize(("level", "code"), [("note", 0), ("problem", 1)])
    def test_without_run_py(self, monkeypatch, level, code):
        seen = []
        command.PROBES["asks"] = lambda asked: iter([seen.append(asked) or Finding(level, "found")])
        monkeypatch.setattr("sys.argv", ["doctor", "--data_root", "x"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        assert seen == [Asked(data_root="x")]


def test_it_starts_without_what_it_looks_at():
    """The probes come after the imports, which therefore must not need a package."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'pyarrow', 'sacred', 'rich', 'packaging']))\n"
        "import vlc.workflows.doctor.command as c; print(c.printable('\\x1bü'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "\\x1b\\xfc"
