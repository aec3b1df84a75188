"""The steps of a search as tasks of Prefect: sample, train on the proxy task, learn, confirm."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from nas_core.search.candidates import Outcome
from nas_core.search.confirming import ConfirmingRun
from nas_core.search.journal import Record
from nas_core.search.loop import Search, Steps
from nas_core.search.rewards import CandidateCost
from nas_core.search.scheduling import Candidate
from nas_core.space.genotype import Genotype


@task(name="sample candidates", task_run_name="sample round {number}", cache_policy=NO_CACHE)
def sample_candidates(search: Search, number: int) -> list[tuple[Genotype, CandidateCost]]:
    return search.sample(number)


@task(
    name="train candidate",
    task_run_name="candidate {candidate.number} · {candidate.short_id}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def train_on_proxy(search: Search, candidate: Candidate) -> Outcome:
    return search.train(candidate)


@task(name="aggregate rewards", task_run_name="learn from round {number}", cache_policy=NO_CACHE)
def aggregate_rewards(search: Search, number: int) -> dict[str, float]:
    return search.learn(number)


@task(
    name="confirm candidate",
    task_run_name="confirm {run.short_id} · seed {run.number}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def confirm_on_proxy(search: Search, run: ConfirmingRun) -> Outcome:
    return search.confirm(run)


@task(name="rebuild diagnostics", task_run_name="rebuild diagnostics", cache_policy=NO_CACHE)
def rebuild_diagnostics(search: Search) -> list[str]:
    return search.rebuild_diagnostics()


@task(name="measure latencies", task_run_name="measure latencies", cache_policy=NO_CACHE)
def measure_latencies(search: Search) -> list[Record]:
    return search.measure_latencies()


class TaskSteps(Steps):
    """The steps of a search, each a task run of the flow that calls `Search.run`."""

    def sample(self, search: Search, number: int) -> list[tuple[Genotype, CandidateCost]]:
        return sample_candidates(search, number)

    def train(self, search: Search, candidate: Candidate) -> Outcome:
        return train_on_proxy(search, candidate)

    def learn(self, search: Search, number: int) -> dict[str, float]:
        return aggregate_rewards(search, number)

    def confirm(self, search: Search, run: ConfirmingRun) -> Outcome:
        return confirm_on_proxy(search, run)

    def rebuild_diagnostics(self, search: Search) -> list[str]:
        return rebuild_diagnostics(search)
