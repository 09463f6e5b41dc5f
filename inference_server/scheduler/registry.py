"""The models that serve: loads them from the repository and finds the one that a request names."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import ConfigurationError, InferenceError, InvalidInput, NotFound, Unavailable
from inference_server.models.repository import ModelFolder, ModelRepository, VersionFile, no_such_model
from inference_server.models.values import ConfigMessage
from inference_server.scheduler.catalogue import Catalogue, Served
from inference_server.scheduler.dispatch.admission import Admission
from inference_server.scheduler.dispatch.rate_limiter import RateLimiter
from inference_server.scheduler.ensemble import ServedEnsemble
from inference_server.scheduler.gpu_serving import served_model
from inference_server.scheduler.loading.builds import Builder, ModelBuilds
from inference_server.scheduler.loading.loader import ModelLoader
from inference_server.scheduler.loading.memory import MemoryBudget, gpu_budgets
from inference_server.scheduler.loading.order import check_ends, load_order
from inference_server.scheduler.loading.thread import LoadThread
from inference_server.scheduler.metrics.scheduler import ModelMetrics, SchedulerMetrics, tell_of_room
from inference_server.scheduler.metrics.statistics import Statistics
from inference_server.scheduler.metrics.triton import TritonMetrics
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest, InferenceResponse, ModelFacts
from inference_server.scheduler.response_cache import ResponseCache
from inference_server.scheduler.retiring import Retiring
from inference_server.scheduler.serving import ServedModel, Shared
from inference_server.scheduler.status import ModelState, ModelStatus, Statuses

_log = structlog.get_logger()


class ServingModels:
    """The models of a repository, loaded, queued for and run: fulfils `port.Inference`.

    `engines`: the selector of each device, the server's own device first. `builder`: builds engines while others serve; None leaves those
    that are not built.
    """

    def __init__(
        self,
        repository: ModelRepository,
        engines: Mapping[str, EngineSelector],
        *,
        metrics: CollectorRegistry,
        options: SchedulingOptions | None = None,
        builder: Builder | None = None,
    ) -> None:
        options = options or SchedulingOptions()
        memory = MemoryBudget(options.model_memory_bytes)
        gpu_memory = gpu_budgets({device: each.device_memory for device, each in engines.items()}, options.gpu_memory_bytes)
        cache = ResponseCache(options.response_cache_bytes)
        self.admission = Admission(options.limits)
        tell_of_room(metrics, admission=self.admission, cache=cache, memory=memory, gpu_memory=gpu_memory)
        self._repository = repository
        self._loader = ModelLoader(
            engines,
            pin=options.engine,
            default_max_batch_size=options.default_max_batch_size,
            cpu_fallback=options.cpu_fallback,
            memory=memory,
            gpu_memory=gpu_memory,
        )
        self._shared = Shared(admission=self.admission, limiter=RateLimiter(), cache=cache, options=options)
        self._metrics = SchedulerMetrics(metrics)
        self._statuses = Statuses(self._metrics)
        self._catalogue = Catalogue(self._statuses)
        metrics.register(TritonMetrics(self.served))
        self._retiring = Retiring()
        self.builds = ModelBuilds(builder, metrics, self._reload)
        # The configurations that were sent with loads, by model.
        self._sent: dict[str, str | None] = {}
        self._draining = False
        # One model at a time is loaded or taken out.
        self._loading = asyncio.Lock()
        self._thread = LoadThread()

    async def load_all(self, *, but: Collection[str] = ()) -> None:
        """Load every model of the repository, one after another; those that fail are told in `index` and stop nobody else.

        `but`: names that stay as they are.
        Raises `ConfigurationError` when the repository itself cannot be read.
        """
        for name in await self.announce(but=but):
            try:
                await self.load(name)
            except InferenceError as error:
                _log.error("model_unavailable", model=name, reason=str(error))

    async def announce(self, *, but: Collection[str] = ()) -> Sequence[str]:
        """Tell of every model of the repository that it will load, and of none that it is not there; returns them in the order of loading.

        `but`: names that stay as they are. Raises `ConfigurationError` when the repository itself cannot be read.
        """
        names = [name for name in await self._thread.run(partial(load_order, self._repository)) if name not in but]
        for name in names:
            self._statuses.set(ModelStatus(name=name, version="", state=ModelState.LOADING, reason="waits for its turn to load"))
        return names

    async def load(self, name: str, *, config: str | None = None) -> None:
        """Load a model anew, swap it in when it is warm, and let the old one finish what it has.

        `config`, as JSON, stands for the model's config.pbtxt until the next load. What served before goes on serving when the load
        fails. Raises `NotFound`, `InvalidInput`, `ConfigurationError` or `ModelFailed`.
        """
        async with self._loading:
            try:
                folder = await self._thread.run(lambda: self._repository.read(name, config=config))
            except InvalidInput:
                raise
            except NotFound:
                self._statuses.forget_model(name)
                raise
            except InferenceError as error:
                self._statuses.broken(name, str(error), serving=self._catalogue.versions(name))
                raise
            self._sent[name] = config
            await self._load_versions(folder)

    async def _reload(self, name: str) -> None:
        """Load a model anew as it was loaded last, unless it was taken out meanwhile."""
        if self._catalogue.versions(name) and not self._draining:
            await self.load(name, config=self._sent.get(name))

    async def unload(self, name: str) -> None:
        """Take a model out of service; returns when nothing asks it any more, while what it was asked before still runs.

        A model that does not serve is left as it is. Raises `NotFound`.
        """
        async with self._loading:
            if name not in self._statuses and name not in await self._thread.run(self._repository.names):
                raise no_such_model(name)
            for version in tuple(self._catalogue.versions(name)):
                self._statuses.set(ModelStatus(name=name, version=version, state=ModelState.UNLOADING, reason="finishes what it was asked"))
                self._gone(name, version)
                self._retiring.retire(self._catalogue.take_out(name, version)).add_done_callback(partial(self._unloaded, name, version))
                _log.info("model_unloading", model=name, version=version)

    def _gone(self, name: str, version: str) -> None:
        self._metrics.gone(name, version)
        self.builds.gone(name, version)

    def _unloaded(self, name: str, version: str, _: asyncio.Task[None]) -> None:
        self._statuses.unloaded(name, version)

    async def listing(self) -> tuple[ModelStatus, ...]:
        """Every version that is known, and the models of the repository that nobody has asked to load."""
        names = await self._thread.run(self._repository.names)
        new = (ModelStatus(name=name, version="", state=ModelState.UNKNOWN) for name in names if name not in self._statuses)
        return (*self.index(), *new)

    def statistics(self, name: str = "", version: str = "") -> tuple[Statistics, ...]:
        """Counts and times of each version that serves, of one model or of all. Raises as `facts` does."""
        if not name:
            return tuple(served.statistics for served in self._catalogue.all())
        found = self._catalogue.find(name, version)
        return (found.statistics,) if version else tuple(served.statistics for served in self._catalogue.versions(name).values())

    def served(self) -> tuple[Served, ...]:
        """Each version that serves."""
        return self._catalogue.all()

    def index(self) -> tuple[ModelStatus, ...]:
        """Every version that is known, serving or not, and what of its engines is not built yet."""
        return tuple(self._with_builds(status) for status in self._statuses.all())

    def _with_builds(self, status: ModelStatus) -> ModelStatus:
        building = self.builds.reason(status.name, status.version) if status.state is ModelState.READY else ""
        return replace(status, reason="; ".join(filter(None, (status.reason, building)))) if building else status

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether a model serves; of an empty version, whether any does."""
        return not self._draining and self._catalogue.is_ready(name, version)

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a model that serve, oldest first. Raises as `facts` does."""
        self._catalogue.find(name)
        return tuple(sorted(self._catalogue.versions(name), key=int))

    def facts(self, model: str, version: str = "") -> ModelFacts:
        """What serves under a name; see `port.Inference`."""
        return self._catalogue.find(model, version).facts

    def config(self, name: str, version: str = "") -> ConfigMessage:
        """The complete configuration of a model that serves. Raises as `facts` does."""
        return self._catalogue.find(name, version).config

    def labels(self, name: str, version: str = "") -> Mapping[str, tuple[str, ...]]:
        """Names of a model's classes by output, where its owner gave them. Raises as `facts` does."""
        return self._catalogue.find(name, version).labels

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request, batched with others of its shape; see `port.Inference`."""
        if self._draining:
            raise Unavailable("the server is shutting down; try again")
        return await self._catalogue.find(request.model, request.version).infer(request)

    async def close(self, *, grace_seconds: float) -> None:
        """Refuse new requests, let those that are there finish within the grace, and end all instances."""
        self._draining = True
        await self.builds.close()
        served = [*self._catalogue.all(), *self._retiring.all()]
        for kind in (ServedEnsemble, ServedModel):  # ensembles first: what they have begun needs the models
            async with asyncio.TaskGroup() as group:
                for model in served:
                    if isinstance(model, kind):
                        group.create_task(model.close(grace_seconds=grace_seconds))
        await self._retiring.wait()
        self._thread.close()

    async def _load_versions(self, folder: ModelFolder) -> None:
        self._statuses.forget(folder.name, "")
        failures: list[InferenceError] = []
        for file in folder.versions:
            if file.version not in self._catalogue.versions(folder.name):
                self._statuses.set(ModelStatus(name=folder.name, version=file.version, state=ModelState.LOADING, reason="loads"))
        for file in reversed(folder.versions):  # the newest first: it is the one that most ask for
            try:
                await self._load_version(folder, file)
            except InferenceError as error:
                failures.append(error)
                self._statuses.failed(folder.name, file.version, str(error), serves=file.version in self._catalogue.versions(folder.name))
        kept = {file.version for file in folder.versions}
        for version in [version for version in self._catalogue.versions(folder.name) if version not in kept]:
            self._retiring.retire(self._catalogue.take_out(folder.name, version))
            self._gone(folder.name, version)
        for version in self._statuses.versions(folder.name) - kept:
            self._statuses.forget(folder.name, version)
        if failures:
            raise failures[0]

    async def _load_version(self, folder: ModelFolder, file: VersionFile) -> None:
        metrics = ModelMetrics(self._metrics, folder.name, file.version)
        if folder.configuration.steps:
            check_ends(folder.name, (step.model for step in folder.configuration.steps), self._catalogue.models_of)
            self._swap(ServedEnsemble(folder, file.version, infer=self._infer_step, facts=self.facts, metrics=metrics))
            return
        if folder.configuration.caches and not self._shared.options.response_cache_bytes:
            raise ConfigurationError(
                f"{folder.name}/config.pbtxt asks for response_cache; give it room: INFERENCE_RESPONSE_CACHE_BYTES is 0"
            )
        loaded = await self._thread.run(partial(self._loader.load, folder, file))
        if self._draining:
            loaded.memory.release()
            return
        self._metrics.serves(folder.name, file.version, loaded.placed)
        cache = self._shared.cache.of_model() if folder.configuration.caches else None
        self._swap(served_model(loaded, self._shared, metrics=metrics, cache=cache))
        self.builds.loaded(folder.name, file.version, loaded.unbuilt)

    async def _infer_step(self, request: InferenceRequest) -> InferenceResponse:
        """A step of a request that was let in: it is finished even while the server shuts down."""
        return await self._catalogue.find(request.model, request.version).infer(request)

    def _swap(self, served: Served) -> None:
        facts = served.facts
        old = self._catalogue.put(served)
        self._statuses.set(ModelStatus(name=facts.name, version=facts.version, state=ModelState.READY))
        _log.info("model_ready", model=facts.name, version=facts.version, engine=facts.engine)
        if old is not None:
            self._retiring.retire(old)
