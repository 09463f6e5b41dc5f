"""deploy/deploy.sh, run by bash with programs in the place of aws and docker."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.deploy.ecs_definitions import problems
from tests.support.deploy.recorded_programs import Recorded, recorded_programs

ROOT = Path(__file__).parents[2]
REGISTRY = "123456789012.dkr.ecr.ap-southeast-2.amazonaws.com"
PLACE = {"AWS_REGION": "ap-southeast-2", "AWS_ACCOUNT_ID": "123456789012", "IMAGE_TAG": "1.2.3"}
REVISION = "arn:aws:ecs:ap-southeast-2:123456789012:task-definition/filot-ocr-gpu-worker"
RUNNING = {("aws", "ecs", "describe-services"): f"{REVISION}:7"}
# No tag is in the registry yet.
NEW = {("aws", "ecr", "describe-images"): 254}


def rolled_out(wanted: str, running: str, state: str) -> dict[tuple[str, ...], str]:
    """What AWS answers when a revision is asked for and what runs in the end is this."""
    return {
        ("aws", "ecs", "update-service"): f"{REVISION}:{wanted}",
        ("aws", "ecs", "describe-services", "--query"): f"{REVISION}:{running}\t{state}",
    }


@pytest.fixture
def programs(tmp_path: Path) -> Recorded:
    return recorded_programs(tmp_path / "bin", "aws", "docker", "sleep")


def deploy(programs: Recorded, *words: str, environment: Mapping[str, str] = PLACE, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(root / "deploy" / "deploy.sh"), *words]
    return subprocess.run(command, env={"PATH": programs.path, **environment}, capture_output=True, text=True, timeout=60)


def shown(calls: list[list[str]]) -> list[str]:
    """The first words of each call."""
    return [" ".join(call[:3]) for call in calls]


def test_help_names_every_command(programs: Recorded) -> None:
    done = deploy(programs, "help")
    assert done.returncode == 0
    assert [] == [
        name for name in ("build", "push", "register", "update", "deploy", "rollback", "all", "help") if f"\n  {name} " not in done.stdout
    ]
    assert programs.calls() == []


def test_build_makes_each_image_of_the_worker(programs: Recorded) -> None:
    assert deploy(programs, "build").returncode == 0
    tags = [(call[call.index("--file") + 1].rpartition("/")[2], call[call.index("--tag") + 1]) for call in programs.calls()]
    assert tags == [
        ("Dockerfile.bridge", f"{REGISTRY}/lamina-bridge:1.2.3"),
        ("Dockerfile.models", f"{REGISTRY}/lamina-models:1.2.3"),
        ("Dockerfile.gpu", f"{REGISTRY}/lamina-inference-gpu:1.2.3"),
    ]
    assert [f"MODELS={REGISTRY}/lamina-models:1.2.3" in call for call in programs.calls()] == [False, False, True]


def test_models_that_are_in_the_registry_are_taken_and_not_built(programs: Recorded) -> None:
    programs.answer(NEW)
    assert deploy(programs, "build", "--models", "5").returncode == 0
    login, *built = [call for call in programs.calls() if call[0] == "docker"]
    assert login[1] == "login"
    assert [call[call.index("--tag") + 1] for call in built] == [
        f"{REGISTRY}/lamina-bridge:1.2.3",
        f"{REGISTRY}/lamina-inference-gpu:1.2.3",
    ]
    assert f"MODELS={REGISTRY}/lamina-models:5" in built[1]
    assert deploy(programs, "push", "--models", "5").returncode == 0
    assert [] == [call for call in programs.calls() if call[:2] == ["docker", "push"] and "lamina-models" in call[2]]


def test_models_are_built_and_pushed_by_themselves(programs: Recorded) -> None:
    programs.answer(NEW)
    assert [deploy(programs, command, "--worker", "models", "--tag", "5").returncode for command in ("build", "push")] == [0, 0]
    built, _, pushed = [call for call in programs.calls() if call[0] == "docker"]
    assert built[built.index("--tag") + 1] == f"{REGISTRY}/lamina-models:5"
    assert pushed == ["docker", "push", f"{REGISTRY}/lamina-models:5"]


def test_arguments_of_the_build_reach_it(programs: Recorded) -> None:
    assert (
        deploy(
            programs, "build", "--worker", "wsi", "--build-arg", "BASE=python@sha256:1", "--build-arg", "REQUIREMENTS=bridge-all"
        ).returncode
        == 0
    )
    (call,) = programs.calls()
    assert [call[place + 1] for place, word in enumerate(call) if word == "--build-arg"] == [
        "BASE=python@sha256:1",
        "REQUIREMENTS=bridge-all",
    ]


def test_push_logs_in_and_makes_repositories_that_are_missing(programs: Recorded) -> None:
    programs.answer({**NEW, ("aws", "ecr", "get-login-password"): "a password", ("aws", "ecr", "describe-repositories"): 254})
    assert deploy(programs, "push").returncode == 0
    assert programs.given("docker", "login") == "a password\n"
    made = [call[call.index("--repository-name") + 1] for call in programs.calls() if call[2] == "create-repository"]
    assert made == ["lamina-bridge", "lamina-models", "lamina-inference-gpu"]
    assert [call[2] for call in programs.calls() if call[:2] == ["docker", "push"]] == [
        f"{REGISTRY}/lamina-bridge:1.2.3",
        f"{REGISTRY}/lamina-models:1.2.3",
        f"{REGISTRY}/lamina-inference-gpu:1.2.3",
    ]


def test_push_leaves_repositories_that_are_there_alone(programs: Recorded) -> None:
    assert deploy(programs, "push").returncode == 0
    assert "aws ecr create-repository" not in shown(programs.calls())


def test_push_leaves_a_tag_that_is_there_alone(programs: Recorded) -> None:
    programs.answer({("aws", "ecr", "describe-images", "--region", "ap-southeast-2", "--repository-name", "lamina-inference-gpu"): 254})
    done = deploy(programs, "push")
    assert (done.returncode, "lamina-bridge:1.2.3 is in the registry already" in done.stdout) == (0, True)
    assert [call[2] for call in programs.calls() if call[:2] == ["docker", "push"]] == [f"{REGISTRY}/lamina-inference-gpu:1.2.3"]


def test_register_sends_a_definition_that_ecs_takes_with_everything_put_in(programs: Recorded) -> None:
    programs.answer({("aws", "ecs", "register-task-definition"): f"{REVISION}:8"})
    done = deploy(programs, "register")
    assert (done.returncode, done.stdout.strip()) == (0, f"{REVISION}:8")
    (call,) = programs.calls()
    definition = json.loads(call[call.index("--cli-input-json") + 1])
    assert problems(definition) == ""
    assert "${" not in json.dumps(definition)
    assert [one["image"] for one in definition["containerDefinitions"]] == [
        f"{REGISTRY}/lamina-inference-gpu:1.2.3",
        f"{REGISTRY}/lamina-bridge:1.2.3",
    ]


@pytest.mark.parametrize("command", ["register", "deploy", "all"])
def test_what_is_not_set_is_named_before_anything_is_done(programs: Recorded, command: str) -> None:
    done = deploy(programs, command, "--worker", "wsi")
    assert done.returncode == 1
    assert "wsi-bridge.json needs INFERENCE_ADDRESS WSI_BUCKET; set them in the environment" in done.stderr
    assert programs.calls() == []


def test_update_lets_the_newest_revision_run_and_waits_for_it(programs: Recorded) -> None:
    programs.answer({**rolled_out("8", "8", "COMPLETED"), **RUNNING})
    done = deploy(programs, "update")
    assert (done.returncode, done.stdout) == (0, "filot-ocr-gpu-service runs filot-ocr-gpu-worker:8\n")
    _, updated, waited, _ = programs.calls()
    assert updated[updated.index("--task-definition") + 1] == "filot-ocr-gpu-worker"
    assert (updated[updated.index("--cluster") + 1], updated[updated.index("--service") + 1]) == (
        "filot-ocr-gpu-cluster",
        "filot-ocr-gpu-service",
    )
    assert "deploymentCircuitBreaker={enable=true,rollback=true}" in updated
    assert waited[:4] == ["aws", "ecs", "wait", "services-stable"]


@pytest.mark.parametrize("command", ["update", "deploy", "rollback"])
@pytest.mark.parametrize(
    ("running", "state", "told"),
    [
        ("7", "COMPLETED", "did not become healthy with filot-ocr-gpu-worker:8 and has gone back to filot-ocr-gpu-worker:7"),
        ("8", "FAILED", "did not become healthy with filot-ocr-gpu-worker:8, and has no revision to go back to"),
        ("8", "IN_PROGRESS", "has not become healthy with filot-ocr-gpu-worker:8 in time; its rollout is IN_PROGRESS"),
    ],
)
def test_a_revision_that_does_not_become_healthy_is_a_failure(
    programs: Recorded, command: str, running: str, state: str, told: str
) -> None:
    registered = {("aws", "ecs", "register-task-definition"): f"{REVISION}:8"}
    listed = {("aws", "ecs", "list-task-definitions"): f"{REVISION}:6"}
    programs.answer({**rolled_out("8", running, state), **RUNNING, **registered, **listed})
    done = deploy(programs, command)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr


def test_deploy_asks_for_the_revision_that_it_registered(programs: Recorded) -> None:
    programs.answer({**rolled_out("8", "8", "COMPLETED"), **RUNNING, ("aws", "ecs", "register-task-definition"): f"{REVISION}:8"})
    assert deploy(programs, "deploy").returncode == 0
    (updated,) = [call for call in programs.calls() if call[2] == "update-service"]
    assert updated[updated.index("--task-definition") + 1] == f"{REVISION}:8"


def test_update_of_a_service_that_is_not_there_says_how_to_make_it(programs: Recorded) -> None:
    programs.answer({("aws", "ecs", "describe-services"): "None"})
    done = deploy(programs, "update")
    assert done.returncode == 1
    assert "there is no service filot-ocr-gpu-service in filot-ocr-gpu-cluster; make it by deploy/terraform/examples" in done.stderr
    assert shown(programs.calls()) == ["aws ecs describe-services"]


def test_all_does_each_step_in_order(programs: Recorded) -> None:
    programs.answer({**NEW, **RUNNING, ("aws", "ecs", "register-task-definition"): f"{REVISION}:8"})
    assert deploy(programs, "all", "--no-wait").returncode == 0
    steps = [call for call in shown(programs.calls()) if "describe" not in call and "get-login" not in call]
    assert [" ".join(step.split()[:2]) if step.startswith("docker") else step for step in steps] == [
        "docker build",
        "docker build",
        "docker build",
        "docker login",
        "docker push",
        "docker push",
        "docker push",
        "aws ecs register-task-definition",
        "aws ecs update-service",
    ]


FIRST_BUILD = ("docker", "build", "--platform", "linux/amd64", "--file", str(ROOT / "Dockerfile.bridge"))
FIRST_PUSH = ("docker", "push", f"{REGISTRY}/lamina-bridge:1.2.3")


@pytest.mark.parametrize("failing", [FIRST_BUILD, FIRST_PUSH, ("docker", "login"), ("aws", "ecs", "register-task-definition")])
def test_nothing_follows_a_step_that_fails(programs: Recorded, failing: tuple[str, ...]) -> None:
    programs.answer({failing: 1, **NEW, **RUNNING})
    assert deploy(programs, "all").returncode != 0
    assert programs.calls()[-1][: len(failing)] == list(failing)


def test_rollback_goes_to_the_revision_before_the_one_that_runs(programs: Recorded) -> None:
    listed = "\t".join(f"{REVISION}:{number}" for number in (9, 8, 7, 5, 4))
    programs.answer({**rolled_out("5", "5", "COMPLETED"), **RUNNING, ("aws", "ecs", "list-task-definitions"): listed})
    done = deploy(programs, "rollback")
    assert (done.returncode, "goes back from filot-ocr-gpu-worker:7 to filot-ocr-gpu-worker:5" in done.stdout) == (0, True)
    (updated,) = [call for call in programs.calls() if call[2] == "update-service"]
    assert updated[updated.index("--task-definition") + 1] == "filot-ocr-gpu-worker:5"


def test_rollback_without_a_revision_before_changes_nothing(programs: Recorded) -> None:
    programs.answer({**RUNNING, ("aws", "ecs", "list-task-definitions"): f"{REVISION}:7"})
    done = deploy(programs, "rollback")
    assert done.returncode == 1
    assert "there is no revision before filot-ocr-gpu-worker:7" in done.stderr
    assert "aws ecs update-service" not in shown(programs.calls())


def test_rollback_goes_where_it_is_told(programs: Recorded) -> None:
    programs.answer(RUNNING)
    assert deploy(programs, "rollback", "--to", "3", "--no-wait").returncode == 0
    assert "filot-ocr-gpu-worker:3" in programs.calls()[-1]


@pytest.mark.parametrize("command", ["build", "push", "register", "update", "deploy", "all", "rollback"])
def test_a_dry_run_says_what_it_would_do_and_changes_nothing(programs: Recorded, command: str) -> None:
    listed = f"{REVISION}:7\t{REVISION}:6"
    missing = {**NEW, ("aws", "ecr", "describe-repositories"): 254}
    programs.answer({**RUNNING, **missing, ("aws", "ecs", "list-task-definitions"): listed})
    done = deploy(programs, command, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would" in done.stdout
    reading = {"aws ecs describe-services", "aws ecs list-task-definitions", "aws ecr describe-repositories", "aws ecr describe-images"}
    assert set(shown(programs.calls())) <= reading


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (("build",), {}, "AWS_REGION is not set; set it to the region"),
        (("build",), {**PLACE, "AWS_ACCOUNT_ID": "12"}, "AWS_ACCOUNT_ID: '12' is no account; expected 12 digits"),
        (("build", "--worker", "other"), PLACE, "--worker: 'other' is none of ocr-gpu, lab, wsi, inference, models"),
        (("deploy", "--worker", "models"), PLACE, "--worker models: models are built and pushed, and run in no service"),
        (("build", "--worker", "models", "--models", "5"), PLACE, "--models names models that are there"),
        (("build", "--fast"), PLACE, "unknown option '--fast'"),
        (("ship",), PLACE, "unknown command 'ship'"),
        (("rollback", "--to", "last"), PLACE, "--to: 'last' is no revision; expected a number"),
        (("build", "--tag"), PLACE, "--tag needs a value"),
    ],
)
def test_what_is_wrong_is_told(programs: Recorded, words: tuple[str, ...], environment: Mapping[str, str], told: str) -> None:
    done = deploy(programs, *words, environment=environment)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
    assert programs.calls() == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit that holds the script and what images are built from."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("terraform", "kubernetes", "monitoring"))
    for file in ROOT.glob("Dockerfile.*"):
        shutil.copy(file, folder)
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "--message=one")
    return folder


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_account_is_asked_of_aws_and_the_tag_of_the_checkout(programs: Recorded, checkout: Path) -> None:
    programs.answer({("aws", "sts", "get-caller-identity"): "123456789012"})
    assert deploy(programs, "build", environment={"AWS_REGION": "ap-southeast-2"}, root=checkout).returncode == 0
    commit = _git(checkout, "rev-parse", "--short=12", "HEAD")
    assert f"{REGISTRY}/lamina-bridge:{commit}" in programs.calls()[1]


@pytest.mark.parametrize("changed", ["Dockerfile.bridge", "new.py"])
def test_a_checkout_with_changes_is_not_taken_for_its_commit(programs: Recorded, checkout: Path, changed: str) -> None:
    (checkout / changed).write_text("changed")
    unnamed = {name: value for name, value in PLACE.items() if name != "IMAGE_TAG"}
    for command in ("build", "push", "all"):
        done = deploy(programs, command, environment=unnamed, root=checkout)
        assert (done.returncode, "the checkout has changes that are in no commit" in done.stderr) == (1, True), done.stderr
    assert programs.calls() == []
    assert deploy(programs, "build", "--tag", "trial", environment=unnamed, root=checkout).returncode == 0
