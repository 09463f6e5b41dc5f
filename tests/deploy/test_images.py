"""The container images, as far as they can be tried without a container engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.systems.cards.reading.tesseract import LANGUAGES
from scripts.sbom import bill_of_materials
from scripts.try_image import instructions, try_image
from tests.support.deploy.deploy_tools import deploy_python

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted(ROOT.glob("Dockerfile.*"))
LOCKS = ("bridge", "bridge-all", "bridge-cards", "cpu", "gpu")


def _steps(name: str) -> list[tuple[str, str]]:
    return list(instructions((ROOT / f"Dockerfile.{name}").read_text(encoding="utf-8")))


@pytest.mark.timeout(300)
def test_the_steps_of_the_cpu_image_make_a_server_with_its_code_apart(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in try_image(ROOT / "Dockerfile.cpu", tmp_path, {"MODELS": "none"})}
    image = stages["image"].folder
    program = image / "opt" / "application" / "bin" / "inference-server"
    environment = {"PYTHONPATH": str(image / "opt" / "application"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([program, "serve", "--help"], env=environment, cwd=image, capture_output=True, text=True, timeout=60)
    assert (0, True) == (done.returncode, "--tokens-file" in done.stdout)
    code = sum(path.stat().st_size for path in (image / "opt" / "application").rglob("*") if path.is_file())
    packages = {path.name.partition("-")[0] for path in image.glob("opt/lamina/lib/python*/site-packages/*.dist-info")}
    assert code < 10 * 2**20, "what ships with each change of our code"
    assert ("lamina" in packages, "onnxruntime" in packages, "uv" in packages) == (False, True, False)
    # Only what changes the image's own system was not tried.
    left_out = {step.split()[0] for stage in stages.values() for step in stage.left_out}
    assert left_out <= {"useradd", "install"}
    assert {"dependencies", "application", "none", "models", "image"} == set(stages)


def test_the_gpus_image_is_made_as_the_cpus_is() -> None:
    """What was tried of the one holds for the other: they differ in base, lock, and how Python comes."""

    def plain(name: str) -> list[str]:
        lines = [f"{kind} {rest}" for kind, rest in _steps(name) if kind != "HEALTHCHECK"]
        text = "\n".join(line for line in lines if "apt-get" not in line and "AS python" not in line)
        for one, other in (("gpu.txt", "cpu.txt"), ("python3 -m venv", "python -m venv"), ("FROM python", "FROM ${BASE}")):
            text = text.replace(one, other)
        text = re.sub(r"RUN if command -v .*?fi\s+&& ", "RUN ", text).replace("INFERENCE_DEVICE=cuda:0 ", "")
        return re.sub(r"ARG BASE=\S+", "ARG BASE", re.sub(r"[ \t]+", " ", text)).splitlines()

    assert plain("cpu") == plain("gpu")


@pytest.mark.parametrize(("fallback", "installs"), [("none", False), ("tesseract", True)])
def test_an_image_of_the_bridge_has_tesseract_with_its_languages_where_that_is_asked_for(fallback: str, installs: bool) -> None:
    stages: dict[str, list[str]] = {}
    for kind, rest in _steps("bridge"):
        if kind == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name or "image"] = list(stages.get(base.replace("${FALLBACK}", fallback), []))
        elif stages:
            stages[[*stages][-1]].append(rest)
    steps = " ".join(stages["image"])
    wanted = {"tesseract-ocr", *(f"tesseract-ocr-{language}" for language in LANGUAGES)}
    assert installs == (wanted <= set(steps.split()))
    assert installs == ("apt-get" in steps)
    drawing = (ROOT / "requirements" / "bridge-cards.txt").read_text(encoding="utf-8")
    assert "\npypdfium2==" in drawing, "which draws PDFs for it"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_every_image_from_elsewhere_can_be_pinned_by_an_argument(dockerfile: Path) -> None:
    steps = _steps(dockerfile.suffix[1:])
    begins = [rest.partition(" AS ") for kind, rest in steps if kind == "FROM"]
    stages = {name for _, _, name in begins if name} | {"scratch"}
    declared = {rest.partition("=")[0] for kind, rest in steps if kind == "ARG"}
    outside = {base for base, _, _ in begins if base not in stages}
    assert outside
    assert [] == [base for base in outside if not re.fullmatch(r"\$\{(\w+)\}", base) or base[2:-1] not in declared]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_what_images_are_made_of_is_sent_to_the_builder(dockerfile: Path) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = [word for kind, rest in _steps(dockerfile.suffix[1:]) if kind == "COPY" and "--from" not in rest for word in rest.split()[:-1]]
    assert {word.partition("/")[0] for word in copied} <= sent


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_images_run_as_nobody_in_particular(dockerfile: Path) -> None:
    last = [rest for kind, rest in _steps(dockerfile.suffix[1:]) if kind == "USER"]
    assert ["10001"] == last


def test_a_dockerfile_whose_step_fails_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM scratch AS one\nWORKDIR /opt\nRUN echo x > /opt/made \\\n && test -f /opt/lacking\nFROM one\n")
    with pytest.raises(subprocess.CalledProcessError, match="lacking"):
        try_image(broken, tmp_path / "stages", {})
    assert (tmp_path / "stages" / "one" / "opt" / "made").exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_bill_of_materials_names_what_is_locked(lock: str) -> None:
    path = ROOT / "requirements" / f"{lock}.txt"
    done = subprocess.run([sys.executable, "scripts/sbom.py", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    pinned = re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(pinned) == sorted(component["name"] for component in told["components"])
    assert told == bill_of_materials(path), "the same each time"
    assert len({component["bom-ref"] for component in told["components"]}) == len(pinned)


def test_bills_of_materials_fit_the_schema() -> None:
    bills = [bill_of_materials(ROOT / "requirements" / f"{lock}.txt") for lock in LOCKS]
    wrong = json.loads(json.dumps(bills[0]))
    wrong["components"][0]["hashes"][0]["content"] = "no hash"
    complaints = deploy_python(Path(__file__).with_name("bills.py"), [*bills, wrong])
    assert [""] * len(LOCKS) == complaints[:-1]
    assert "no hash" in complaints[-1]


def test_a_lock_without_hashes_gives_no_bill(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("numpy==2.4.0\n")
    with pytest.raises(ValueError, match="numpy: no hash"):
        bill_of_materials(tmp_path / "lock.txt")
    (tmp_path / "lock.txt").write_text("numpy>=2\n")
    with pytest.raises(ValueError, match="pins no package"):
        bill_of_materials(tmp_path / "lock.txt")
