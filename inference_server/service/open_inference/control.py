"""What operators change while the server runs: models, log settings, trace settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inference import grpc_service_pb2 as wire

from inference_server.errors import InvalidInput, NotEnabled, NotOffered
from inference_server.logs import LogLevels
from inference_server.scheduler.registry import ServingModels
from inference_server.service.open_inference.trace_settings import TraceSettings

# Of Triton's log settings, those that mean something here.
_VERBOSE = "log_verbose_level"
_CLASSES = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
# Those that are told, and cannot be changed: where logs go, and how times are written.
_FIXED = {"log_file": "", "log_format": "ISO8601"}

Repository = Mapping[str, wire.ModelRepositoryParameter]
LogSettings = Mapping[str, wire.LogSettingsRequest.SettingValue]


class Control:
    """Changes what `allowed` lets it change; reading is always allowed."""

    def __init__(self, models: ServingModels, levels: LogLevels, traces: TraceSettings, *, allowed: bool) -> None:
        self._models = models
        self._levels = levels
        self._traces = traces
        self._allowed = allowed

    async def load(self, name: str, repository: str, parameters: Repository) -> None:
        """Load a model, or load it anew. Raises `NotEnabled`, `InvalidInput`, or as `ServingModels.load` does."""
        self._check_allowed()
        _check_repository(repository)
        unknown = [key for key in parameters if key != "config"]
        if unknown:
            raise InvalidInput(
                f"loading takes no parameter {', '.join(sorted(unknown))}; it takes config, a configuration as JSON. Model files are taken "
                "from the repository's folder only."
            )
        await self._models.load(name, config=_config(parameters))

    async def unload(self, name: str, repository: str, parameters: Repository) -> None:
        """Take a model out of service. Raises `NotEnabled`, `InvalidInput` or `NotFound`."""
        self._check_allowed()
        _check_repository(repository)
        unknown = [key for key in parameters if key != "unload_dependents"]
        if unknown:
            raise InvalidInput(f"unloading takes no parameter {', '.join(sorted(unknown))}.")
        await self._models.unload(name)

    def log_settings(self, changes: LogSettings) -> wire.LogSettingsResponse:
        """Change the settings that are sent, and tell what holds now. Raises `NotEnabled`, `NotOffered` or `InvalidInput`."""
        if changes:
            self._check_allowed()
            self._change_logs(changes)
        response = wire.LogSettingsResponse()
        response.settings[_VERBOSE].uint32_param = self._levels.verbose
        for setting, name in _CLASSES.items():
            response.settings[setting].bool_param = self._levels.enabled[name]
        for setting, value in _FIXED.items():
            response.settings[setting].string_param = value
        return response

    def trace_settings(self, model: str, changes: Mapping[str, Sequence[str]]) -> wire.TraceSettingResponse:
        """Change the settings that are sent, of a model or of all, and tell what holds for it now.

        Raises `NotEnabled`, `NotOffered`, `InvalidInput`, or as `ServingModels.facts` does.
        """
        if model:
            self._models.facts(model)
        if changes:
            self._check_allowed()
            self._traces.change(model, changes)
        response = wire.TraceSettingResponse()
        for setting, value in self._traces.told(model).items():
            response.settings[setting].value.append(value)
        return response

    def _change_logs(self, changes: LogSettings) -> None:
        _check_known(changes, [_VERBOSE, *_CLASSES, *_FIXED], "log")
        verbose = self._levels.verbose
        enabled = dict(self._levels.enabled)
        for setting, value in changes.items():
            if setting in _FIXED:
                _check_fixed(setting, value)
                continue
            expected = "uint32_param" if setting == _VERBOSE else "bool_param"
            if value.WhichOneof("parameter_choice") != expected:
                raise InvalidInput(f"the log setting {setting} is of a type that it cannot have; send it as {expected}.")
            if setting == _VERBOSE:
                verbose = value.uint32_param
            else:
                enabled[_CLASSES[setting]] = value.bool_param
        self._levels.change(verbose=verbose, **enabled)

    def _check_allowed(self) -> None:
        if not self._allowed:
            raise NotEnabled(
                "models and settings cannot be changed over the network here; start the server with INFERENCE_MODEL_CONTROL=explicit, "
                "which is the default on loopback addresses."
            )


def _check_repository(name: str) -> None:
    if name:
        raise InvalidInput(f"there is one repository, without a name; {name!r} was asked for.")


def _check_known(changes: Mapping[str, object], known: Sequence[str], what: str) -> None:
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise InvalidInput(f"{what} settings {', '.join(unknown)} cannot be changed here; those that can are {', '.join(known)}.")


def _check_fixed(setting: str, value: wire.LogSettingsRequest.SettingValue) -> None:
    if value.WhichOneof("parameter_choice") != "string_param" or value.string_param != _FIXED[setting]:
        raise NotOffered(
            f"the log setting {setting} cannot be changed: logs go to standard error, as JSON with times in ISO 8601; "
            f"it is {_FIXED[setting]!r}."
        )


def _config(parameters: Repository) -> str | None:
    if "config" not in parameters:
        return None
    if parameters["config"].WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput("the load parameter config must be a string_param, a configuration as JSON.")
    return parameters["config"].string_param
