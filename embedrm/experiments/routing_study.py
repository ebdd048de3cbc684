"""The study of router-based reward models: variants, routes, parameters, domains that come and go, claims."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from embedrm.composites.routed import RoutedRewardModel
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.evaluation.routing import regret_facts, router_facts
from embedrm.experiments import variants as v
from embedrm.experiments.accounting import Counted, accounting_rows
from embedrm.experiments.domain_changes import added_domain_facts, left_out_facts
from embedrm.experiments.routing_claims import judge
from embedrm.experiments.studied_domains import studied
from embedrm.experiments.study import StudyData
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Progress, silent
from embedrm.reporting import Column, Figure, Report, Table
from embedrm.reporting.accuracy import accuracy_figure, accuracy_table, comparison_table, splits_table
from embedrm.reporting.claims import claims_table
from embedrm.reporting.routing import routing_section
from embedrm.routers.base import prompt_vectors
from embedrm.routers.logistic import LogisticRouter

FIGURE = (v.SINGLE, v.RODOS, v.MORE, v.ARLISS, v.POOLED, v.ORACLE)
AGAINST = (v.RODOS, v.RODOS_SOFT, v.MORE, v.MORE_LABELLED, v.ARLISS, v.ARLISS_SOFT, v.POOLED, v.MIXTURE)
ROUTINGS = (v.RODOS, v.RODOS_SOFT, v.RANDOM)
_WITHOUT = "accuracy on its test pairs, hard routing, the router's penalty that of all training data"
ACCOUNTED = {v.SINGLE: "single", v.RODOS: "RODOS", v.MORE: v.MORE, v.ARLISS: v.ARLISS}


class RoutingStudy:
    """Everything that is fitted and measured; sections of a report are made from it.

    Parameters
    ----------
    data : StudyData
    featurizer : Featurizer
        Of all heads and experts.
    n_seeds : int
        Seeds of the variants that a seed changes.
    n_added : int
        Domains that are left out and added again; the smallest, the largest, and those between.
    n_resamples : int
    """

    def __init__(
        self,
        data: StudyData,
        featurizer: Featurizer,
        *,
        n_seeds: int = 5,
        n_added: int = 2,
        n_resamples: int = N_RESAMPLES,
        progress: Progress = silent,
    ) -> None:
        part = studied(data)
        data, self.notes = part.data, part.notes
        self.data, self.n_resamples, self.n_seeds = data, n_resamples, n_seeds
        seeds = tuple(range(n_seeds))
        self.parts = {"test": data.test} | ({"held out": data.heldout} if len(data.heldout) else {})
        self.test = data.test
        self.variants = v.fit_variants(data.train, self.parts, featurizer, seeds, progress)
        self.accuracy = {part: self._accuracy(part) for part in self.parts}
        self.compared = {(a, v.SINGLE): self.compare(a, v.SINGLE) for a in AGAINST}
        self.compared |= {(v.RODOS, other): self.compare(v.RODOS, other) for other in (v.MORE, v.ARLISS)}
        rodos = self.variants[v.RODOS].model
        if not isinstance(rodos, RoutedRewardModel):
            raise TypeError("RODOS is a routed model")
        self.rodos = rodos
        self.router = self._router()
        self.regret = self._regret()
        self.rows = self._size_rows()
        self.accounting = self._accounting()
        made = v.factories(featurizer)
        fixed = self._with_fixed_router()
        self.added = added_domain_facts(
            rodos,
            fixed,
            self.variants[v.RODOS].seconds,
            data.train,
            self.test,
            self._domains_to_add(n_added),
            progress,
            n_resamples,
        )
        self.left_out: dict[str, Any] | None = None
        if len(set(data.train.domains) & set(self.test.domains)) >= 3:
            self.left_out = left_out_facts(
                {v.SINGLE: lambda seed: self._single_of_fixed_penalty(featurizer), v.MORE: made[v.MORE]},
                {v.RODOS: fixed},
                data.train,
                self.test,
                seeds[:2],
                v.SEEDED,
                progress,
                n_resamples,
            )
        self.claims = judge(self.compared, self.accounting, self.added)

    def _accuracy(self, part: str) -> dict[str, Any]:
        return accuracy_facts(
            {name: variant.margins[part] for name, variant in self.variants.items()},
            self.parts[part],
            logits={name: variant.model.margins_are_logits for name, variant in self.variants.items()},
            n_resamples=self.n_resamples,
        )

    def compare(self, a: str, b: str) -> dict[str, Any]:
        """Paired difference of two variants on the test pairs."""
        first, second = (self.variants[name].margins["test"] for name in (a, b))
        return comparison_facts(first, second, self.test, n_resamples=self.n_resamples)

    def _routes(self, part: EmbeddedPreferences) -> tuple[Any, np.ndarray]:
        prompts = part.active_prompts
        return prompts, self.rodos.router_.predict_proba(
            prompt_vectors(part.responses, self.rodos.router_views_, prompts)
        )

    def _router(self) -> dict[str, Any]:
        prompts, proba = self._routes(self.test)
        responses = self.test.responses
        return router_facts(
            proba,
            self.rodos.router_.classes_.tolist(),
            responses.domain[prompts],
            groups=responses.group[prompts],
            n_resamples=self.n_resamples,
        )

    def _regret(self) -> dict[str, Any]:
        prompts, proba = self._routes(self.test)
        wrong = self.rodos.router_.classes_[proba.argmax(axis=1)] != self.test.responses.domain[prompts]
        by_prompt = dict(zip(prompts.tolist(), wrong.tolist()))
        return regret_facts(
            self.variants[v.ORACLE].margins["test"][0],
            {name: self.variants[name].margins["test"] for name in ROUTINGS},
            self.test,
            misrouted=np.array([by_prompt[p] for p in self.test.prompt_rows.tolist()]),
            n_resamples=self.n_resamples,
        )

    def _size_rows(self) -> list[dict[str, Any]]:
        accuracy = {row["model"]: row["macro"] for row in self.accuracy["test"]["rows"]}
        rows = []
        for name in (*FIGURE[:-1], v.SINGLE_MLP, v.MORE_LABELLED, v.MIXTURE):
            variant = self.variants[name]
            rows.append(
                {
                    "variant": name,
                    "macro": accuracy[name],
                    "parameters": variant.parameters,
                    "bytes": v.size_on_disk(variant.model),
                    "latency": v.latency(variant.model, self.test),
                    "seconds": variant.seconds,
                }
            )
        return rows

    def _accounting(self) -> list[dict[str, Any]]:
        counted = {name: Counted(self.variants[name].parameters, self.variants[name].copies) for name in ACCOUNTED}
        encoder = int(self.data.train.responses.info.get("encoder_parameters", 0))
        return accounting_rows(encoder, counted, reference=v.RODOS)

    def _single_of_fixed_penalty(self, featurizer: Featurizer) -> LinearHead:
        """Return the single head with its penalty as chosen on all training pairs."""
        single = self.variants[v.SINGLE].model
        if not isinstance(single, LinearHead):
            raise TypeError("the single head is linear")
        return v.linear(featurizer).set_params(l2=single.l2_)

    def _with_fixed_router(self) -> RoutedRewardModel:
        """Return RODOS with the router's penalty as chosen, so that it is not chosen again for every domain left out."""
        found = self.rodos.router_
        router = clone(found).set_params(l2=found.l2_) if isinstance(found, LogisticRouter) else clone(found)
        return self.rodos.with_router(router, self.data.train)

    def _domains_to_add(self, n: int) -> list[str]:
        """Domains by their pairs, from the smallest to the largest, n of them evenly spaced."""
        names, counts = np.unique(self.data.train.domain, return_counts=True)
        both = [(c, d) for d, c in zip(names.tolist(), counts.tolist()) if d in self.test.domains]
        if len(both) < 2:
            return []
        order = [d for _, d in sorted(both)]
        places = np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int))
        return [order[i] for i in places]

    # -- report -----------------------------------------------------------------------------------------------------

    def findings(self) -> list[str]:
        """Return what to take away, one sentence each."""
        out = []
        for name in (v.RODOS, v.MORE, v.ARLISS, v.POOLED, v.MIXTURE):
            d = self.compared[name, v.SINGLE]["macro"]
            out.append(f"{name} against the single head (macro): {_signed(d)}.")
        counts = {
            word: sum(c["verdict"] == word for c in self.claims) for word in ("holds", "does not hold", "undecided")
        }
        out.append("Claims: " + ", ".join(f"{n} {word}" for word, n in counts.items()) + ".")
        return out

    def add_sections(self, report: Report) -> None:
        """Add the study's sections and claims to a report."""
        report.claims = list(self.claims)
        report.notes += self.notes
        text = (
            "Some verdicts follow from how the variants are made here, and say that this works, not that it was likely to: "
            "independent experts cannot change when another is added, and share nothing with it, so that adding one ends "
            "where training on all does; and the paper's accounting gives RODOS an encoder for each domain, so that the "
            "saving of the others grows with the number of domains."
        )
        report.add_section("Claims", text, tables=[claims_table(self.claims)])
        accuracy = self.accuracy["test"]
        seeds = f"Variants that a seed changes ({', '.join(sorted(v.SEEDED))}) are means over {self.n_seeds} seeds."
        tables = [
            accuracy_table(accuracy, "variants", "Variants by domain", seeds, groups=v.GROUPS),
            self._seed_table(),
        ]
        if "held out" in self.parts:
            tables.append(splits_table(self.accuracy, "held-out-phrasings", "Does it hold for other phrasings?"))
        report.add_section("Accuracy", tables=tables, figures=[accuracy_figure(accuracy, FIGURE, "variants")])
        report.add_section(
            "Against the single head",
            tables=[
                comparison_table(self.compared[a, v.SINGLE], a, v.SINGLE, f"comparison-{i}")
                for i, a in enumerate(AGAINST)
            ],
        )
        report.add_section("Routes", **routing_section(self.router, self.regret))
        report.add_section(
            "Size and speed", tables=[self._size_table(), self._accounting_table()], figures=[self._size_figure()]
        )
        if self.added:
            report.add_section("Adding a domain", tables=[self._added_table()])
        if self.left_out is not None:
            caption = (
                "Each domain's test pairs under models that were trained on all other domains. The router can only send its "
                "prompts elsewhere. Penalties of the router and of the single head are those chosen on all training data, "
                "the domain's own among them."
            )
            table = accuracy_table(self.left_out, "left-out", "A domain that training has not seen", caption)
            report.add_section("Leaving a domain out", tables=[table])

    def _seed_table(self) -> Table:
        columns = [
            Column("model", "Variant"),
            Column("n_seeds", "seeds", "integer"),
            Column("micro", "micro", "interval"),
            Column("seed_sd", "sd over seeds", "number", digits=4),
        ]
        rows = [
            {c.key: row[c.key] for c in columns} for row in self.accuracy["test"]["rows"] if row["model"] in v.SEEDED
        ]
        return Table("seeds", "What the seed changes", columns, rows)

    def _size_table(self) -> Table:
        columns = [
            Column("variant", "Variant"),
            Column("macro", "macro accuracy", "interval", best="max"),
            Column("parameters", "parameters", "integer", note="learned numbers beside the encoder"),
            Column("bytes", "on disk", "bytes", note="the saved model, all files"),
            Column("latency", "per response", "seconds", note="routing and scoring of vectors at hand, median"),
            Column("seconds", "training", "seconds", note="one fit, on the machine of the provenance"),
        ]
        return Table("sizes", "Heads alone", columns, self.rows)

    def _accounting_table(self) -> Table:
        columns = [
            Column("variant", "Variant"),
            Column("heads", "heads only", "integer"),
            Column("shared", "one frozen encoder", "integer"),
            Column("reduction_shared", "saved", "number", digits=3, note="against RODOS, one frozen encoder for all"),
            Column(
                "paper",
                "the paper's accounting",
                "integer",
                note="RODOS with an encoder for each domain and the router",
            ),
            Column("reduction_paper", "saved", "number", digits=3, note="against RODOS in the same accounting"),
        ]
        n = len(self.rodos.domains_)
        caption = (
            f"{n} domains. The paper reports 52 % (MoRE) and 55 % (ARLISS) with five domains and another model; its "
            "reference is not stated, and RODOS is taken here. MoRE's experts are heads on a frozen encoder here, and wider "
            "layers in the paper."
        )
        return Table("accounting", "Parameters as the paper counts them", columns, self.accounting, caption=caption)

    def _size_figure(self) -> Figure:
        series = [
            {"label": row["variant"], "x": [row["parameters"]], "y": [row["macro"]["value"]], "names": [row["variant"]]}
            for row in self.rows
        ][:6]
        data = {"series": series, "x_label": "parameters (heads only)", "y_label": "macro accuracy", "x_scale": "log"}
        return Figure("sizes", "Accuracy against size", "scatter", data)

    def _added_table(self) -> Table:
        columns = [
            Column("domain", "Domain added"),
            Column("before", "without it", "interval", note=_WITHOUT),
            Column("after", "added", "interval"),
            Column("full", "trained on all", "interval"),
            Column("difference", "added less trained on all", "interval", digits=4, note="over all test pairs"),
            Column("changed", "change of others", "number", note="largest change of another expert's reward"),
            Column("ratio", "cost", "number", digits=2, note="seconds to add over seconds to train on all"),
        ]
        rows = [{c.key: row[c.key] for c in columns} for row in self.added]
        return Table("added", "An expert is added, the router fitted anew", columns, rows)


def _signed(cell: dict[str, float]) -> str:
    return f"{cell['value']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"
