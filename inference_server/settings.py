"""The settings of the inference server; nothing else reads the environment.

Each field is the variable INFERENCE_<FIELD> and the flag --<field> of `inference-server serve`. A flag wins over its variable.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from inference_server.errors import ConfigurationError

PREFIX = "INFERENCE_"

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):(?P<port>\d{1,5})")
_ENDPOINT = re.compile(r"(https?://)?[^\s/@:]+(:\d{1,5})?/?")
_ENGINE = re.compile(r"auto|(onnxruntime(-cuda|-tensorrt)?|openvino|tensorrt)(:(float32|bfloat16|float16|int8))?")
_PRECISIONS = ("float32", "float16", "bfloat16")


def _address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if not found or int(found["port"]) > 65535:
        raise ValueError("expected host:port, such as 127.0.0.1:8001 or 0.0.0.0:8001; port 0 takes any free one")
    return value


def _engine(value: str) -> str:
    if not _ENGINE.fullmatch(value):
        raise ValueError(
            "expected auto, onnxruntime or openvino, or on a GPU onnxruntime-cuda, onnxruntime-tensorrt or tensorrt, and after all but the "
            "first maybe a precision, such as openvino:bfloat16"
        )
    return value


def _endpoint(value: str) -> str:
    if not _ENDPOINT.fullmatch(value):
        raise ValueError("expected the place of a collector's OTLP over gRPC, such as http://127.0.0.1:4317, https://… or host:port")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"cpu|cuda:\d+", value):
        raise ValueError("expected cpu, or a GPU by its number, such as cuda:0")
    return value


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _weights(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
    if not all(name and re.fullmatch(r"\d+(\.\d+)?", weight) and float(weight) for name, _, weight in pairs):
        raise ValueError("expected names and shares above 0, such as ocr=2,slides=1")
    return {name.strip(): float(weight) for name, _, weight in pairs}


def _key_prefixes(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("off",):
        return ()
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", prefix) for prefix in value):
        raise ValueError("expected off, or prefixes of letters, digits, dots, dashes and underscores, such as lamina_")
    return value


def _precisions(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("off",):
        return ()
    if not set(value) <= set(_PRECISIONS):
        raise ValueError(f"expected off, or some of {', '.join(_PRECISIONS)}, separated by commas")
    return value


def _root(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("expected at least one folder or URL prefix, separated by commas")
    return value


_Address = Annotated[str, AfterValidator(_address)]
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]
_Weights = Annotated[dict[str, float], NoDecode, BeforeValidator(_weights)]
_Roots = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_root)]

_Precisions = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_precisions)]
_SERVICES = ("slides", "documents", "labs")


def _services(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not set(value) <= set(_SERVICES):
        raise ValueError(f"expected one or more of {', '.join(_SERVICES)}, separated by commas")
    return value


def _model_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value):
        raise ValueError("expected the name of a model of the repository, such as all_minilm_l6_v2")
    return value


_SharedMemory = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_key_prefixes)]


class Settings(BaseSettings):
    """Everything that can be set, with defaults for one machine and no other service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, populate_by_name=True)

    listen: _Address = Field("127.0.0.1:8001", description="Address of gRPC, as host:port.")
    http: _Address = Field("127.0.0.1:8002", description="Address of /healthz, /readyz and /metrics, as host:port.")
    models: Path = Field(Path(".lamina/models"), description="Folder of the model repository, in Triton's layout.")
    read_roots: _Roots = Field(
        (".",), description="Folders and URL prefixes that slides and documents may be read from, separated by commas."
    )
    write_roots: _Roots = Field(("results",), description="Folders and URL prefixes that artifacts may be written to, separated by commas.")
    allow_http: bool = Field(False, description="Talk to S3 endpoints without TLS, such as a local MinIO.")

    services: Annotated[_Names, AfterValidator(_services)] = Field(
        _SERVICES, description="Which of slides, documents and labs are served; built-in models of the others are not loaded."
    )
    lab_model: Annotated[str, AfterValidator(_model_name)] = Field(
        "all_minilm_l6_v2", description="Sentence encoder that lab tests are matched with; inference-server models import-bert adds others."
    )

    tls_certificate: Path | None = Field(
        None, description="PEM file of the server's certificate and those up to its root; renewed at will."
    )
    tls_key: Path | None = Field(None, description="PEM file of its private key, not encrypted.")
    tls_client_ca: Path | None = Field(None, description="PEM file of roots; with it every client must show a certificate of theirs.")
    tls_client_permissions: _Names = Field(
        ("infer", "slides", "documents", "labs"), description="What clients with a certificate may do when there are no tokens; also admin."
    )
    tokens_file: Path | None = Field(None, description="File of bearer tokens, a line each: name token permissions; changed at will.")
    insecure: bool = Field(False, description="Listen to other machines without TLS, or without tokens and client certificates.")

    model_control: Literal["auto", "none", "explicit"] = Field(
        "auto",
        description="explicit lets callers load and unload models and change log settings; none does not; auto does on loopback addresses.",
    )
    shared_memory: _SharedMemory = Field(
        (), description="Prefixes of the keys of system shared memory that callers may register, separated by commas; off without any."
    )

    cuda_shared_memory: bool = Field(False, description="Let callers register memory of other processes on the server's GPU.")

    engine: Annotated[str, AfterValidator(_engine)] = Field(
        "auto", description="auto measures and takes the fastest that is right; or onnxruntime, openvino, maybe with a :precision."
    )
    device: Annotated[str, AfterValidator(_device)] = Field("cpu", description="Where models run: cpu, or a GPU as cuda:0.")
    engine_cache: Path = Field(
        Path(".lamina/engines"), description="Folder that keeps measurements of engines, and built engines, for the next start."
    )
    tensorrt: _Precisions = Field(
        ("float16",),
        description="Precisions that TensorRT builds each model in on a GPU, separated by commas; off for models that ask only.",
    )
    build_engines: Literal["background", "none"] = Field(
        "background", description="Whether engines that lack are built while others serve; none leaves it to `models compile`."
    )
    staging: Path = Field(
        Path(".lamina/staging"),
        description="Folder for copies of remote slides that cannot be read in place; max_staged_bytes bounds them.",
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads of one engine; 0 for one a core.")

    response_compression: Literal["none", "deflate", "gzip"] = Field(
        "none", description="How responses are compressed for clients that take it; compressed requests are always taken."
    )
    max_message_bytes: int = Field(256 * 2**20, ge=2**16, lt=2**31, description="Largest message, in bytes.")
    max_connections: int = Field(4096, ge=1, description="Most connections that are open at a time; clients are turned away from more.")
    max_calls: int = Field(4096, ge=1, description="Most calls that are open at a time, streams among them.")
    max_streams: int = Field(1024, ge=1, le=2**31 - 1, description="Most of them on one connection; clients keep more of them back.")
    max_tensors: int = Field(256, ge=1, description="Most inputs of a request, and most outputs.")
    max_name_characters: int = Field(1024, ge=64, description="Longest name or identifier in a request, in characters.")
    max_uri_characters: int = Field(4096, ge=64, description="Longest path or URL in a request, in characters.")
    max_bytes_in_flight: int = Field(2**30, ge=2**16, description="Most bytes of messages that are worked on at a time.")
    max_stream_requests: int = Field(128, ge=1, description="Most requests of one stream that are read and not yet answered.")
    max_shared_memory_regions: int = Field(1024, ge=1, description="Most regions of shared memory that are registered.")
    max_queue_requests: int = Field(4096, ge=1, description="Most requests of models that wait or run.")
    max_queue_bytes: int = Field(2**30, ge=2**16, description="Most bytes of their inputs.")
    client_weights: _Weights = Field(
        {}, description="Shares of clients that wait for the same model, such as ocr=2,slides=1; 1 for all others."
    )
    model_memory_bytes: int = Field(0, ge=0, description="Most memory of all loaded models, in bytes; 0 for 0.8 of the machine's.")
    gpu_memory_bytes: int = Field(0, ge=0, description="Most memory of a GPU for all models on it, in bytes; 0 for 0.9 of what it has.")
    response_cache_bytes: int = Field(
        64 * 2**20, ge=0, description="Most bytes of answers kept for models with response_cache; 0 for none."
    )
    fallback: Literal["none", "cpu"] = Field("none", description="cpu lets the CPU answer where a GPU fails; the answer says so.")
    max_slide_pixels: int = Field(40_000_000_000, ge=1, description="Largest slide that is stored in tiles, in pixels of level 0.")
    max_image_pixels: int = Field(100_000_000, ge=1, description="Largest slide that is stored without tiles, in pixels.")
    max_tile_pixels: int = Field(4096 * 4096, ge=1, description="Largest stored tile of a slide, or tile of a client, in pixels.")
    max_request_pixels: int = Field(64 * 2**20, ge=1, description="Most pixels of all the tiles that a client sends in a request.")
    max_staged_bytes: int = Field(
        20 * 2**30, ge=1, description="Most bytes of remote slides that lie on local disk to be read; a larger slide is refused."
    )
    max_document_bytes: int = Field(128 * 2**20, ge=1, description="Largest document, in bytes.")
    max_document_pages: int = Field(2000, ge=1, description="Most pages of a document.")
    pdf_processes: int = Field(0, ge=0, le=64, description="Processes that read PDFs; 0 for one a core, 2 to 4.")
    max_pdf_memory_bytes: int = Field(2**30, ge=2**27, description="Most bytes of memory that each of them may use.")
    max_page_pixels: int = Field(100_000_000, ge=1, description="Largest page of a document, in pixels.")
    max_page_seconds: float = Field(120.0, gt=0, description="Longest that a page of a document may be worked on, in seconds.")
    max_document_seconds: float = Field(3600.0, gt=0, description="Longest that a document may take; pages left then are told as errors.")
    max_lab_tests: int = Field(1000, ge=1, description="Most lab tests, texts or aliases of a request.")
    max_lab_characters: int = Field(300, ge=1, description="Longest name, or other text, of a lab test, and longest query, in characters.")
    max_candidates: int = Field(100, ge=1, description="Most candidates for a lab test, and most hits of a search.")
    max_text_characters: int = Field(20_000, ge=1, description="Longest text to embed, in characters.")

    otlp_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None,
        validation_alias=AliasChoices("INFERENCE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Where traces are sent by OTLP over gRPC, as http://host:4317; nowhere if unset. Also OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    otlp_disabled: bool = Field(
        False,
        validation_alias=AliasChoices("INFERENCE_OTLP_DISABLED", "OTEL_SDK_DISABLED"),
        description="Send no traces although there is a place for them. Also OTEL_SDK_DISABLED.",
    )
    trace_rate: int = Field(
        1, ge=0, lt=2**32, description="One of so many requests is traced; 0 for those only whose callers trace them, which always are."
    )
    trace_count: int = Field(-1, ge=-1, lt=2**31, description="Most traces that are begun for untraced callers; -1 for no end of them.")
    receive_seconds: float = Field(
        30.0, gt=0, le=86_400, description="Seconds for a client to send the next MiB, or the rest, of what it has begun to send."
    )
    send_seconds: float = Field(300.0, gt=0, le=86_400, description="Seconds in which a client must take something of its answer.")
    connection_idle_seconds: float = Field(
        3600.0, ge=0, le=864_000, description="Seconds without a call after which a connection is ended in peace; 0 for never."
    )
    connection_age_seconds: float = Field(
        0.0, ge=0, le=8_640_000, description="Seconds after which any connection is ended in peace, so that clients spread; 0 for never."
    )

    grace_seconds: float = Field(1.0, ge=0, le=3600, description="Seconds of serving on after SIGTERM while load balancers turn away.")
    drain_seconds: float = Field(30.0, ge=0, le=86_400, description="Seconds after the grace for calls in flight to end.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    def limits(self) -> dict[str, int]:
        """Each limit, by its name without `max_`."""
        return {name.removeprefix("max_"): getattr(self, name) for name in type(self).model_fields if name.startswith("max_")}

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Read the environment; flags that are None count as not given. Raises `ConfigurationError`."""
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise ConfigurationError("\n".join(_explain(problem) for problem in error.errors())) from error


def _field_of(name: str) -> str:
    """The field that a value was given for, by its own name or by a variable that has no prefix of ours."""
    aliases = {field: known.validation_alias for field, known in Settings.model_fields.items()}
    return next((field for field, alias in aliases.items() if isinstance(alias, AliasChoices) and name in alias.choices), name)


def _explain(problem: Any) -> str:
    """One line: the variable, the flag, what is wrong, what was given and how to mend it."""
    name = _field_of(str(problem["loc"][0])) if problem["loc"] else ""
    field = Settings.model_fields.get(name)
    reason = problem["msg"].removeprefix("Value error, ")
    meaning = f" It means: {field.description}" if field else ""
    return f"{PREFIX}{name.upper()} (--{name.replace('_', '-')}): {reason}; {problem['input']!r} was given.{meaning}"
