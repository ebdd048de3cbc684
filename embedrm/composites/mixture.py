"""MoRE: experts and an internal router on the prompt, trained together from comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.composites import COMPOSITES
from embedrm.composites._mixture_adam import Schedule
from embedrm.composites._mixture_checks import checked_parameters
from embedrm.composites._mixture_fitting import Fit, candidates_of
from embedrm.composites._mixture_gate import clusters, kept_logits, sparse_softmax
from embedrm.composites._mixture_pruning import Pruning
from embedrm.composites._mixture_training import Prompts, Settings, mix, prompt_shares
from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._network import Network
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, Objective, make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_finite, check_preferences
from embedrm.routers.base import check_vectors, prompt_vectors
from embedrm.views import select_views

Array = NDArray[np.float64]

# l2 and l2_shared where none are given, of linear experts and of perceptrons.
LINEAR_L2, PERCEPTRON_L2 = (0.2, 1.0), (1e-3, 1e-3)
L2_GRID = (0.1, 0.3, 1.0)
_GATE_ROWS = 4096


@COMPOSITES.register("mixture")
class MixtureRewardModel(Pruning, RewardModel):
    r"""Experts behind an internal router, trained jointly from the comparisons (MoRE), with an optional shared part.

    .. math:: r(x, y) = r_0(x, y) + \sum_e g_e(x) \, r_e(x, y), \qquad g = \mathrm{softmax}(\mathrm{Top}_k(V^\top z + b))

    with z the standardised vectors of the prompt alone. Minimised is the objective's mean loss, plus
    :math:`\tfrac12\lambda\lVert w_e\rVert^2` of every expert, :math:`\tfrac12\lambda_0\lVert w_0\rVert^2` of the shared
    part, :math:`\tfrac12\lambda_g\lVert V\rVert^2`, the cross-entropy of the domain under the gate before any expert is
    left out (``supervision``), and balance losses. Sums over prompts take each once.

    The gate sees the prompt only, so it is the same for both responses of a pair, what Bradley–Terry leaves free cancels,
    and ``margins(swapped) == -margins``.

    Parameters
    ----------
    featurizer : Featurizer, optional
        Features of the experts and of the shared part; all response views, centred and in one scale, where absent.
    n_experts : int, optional
        As many as the training pairs have domains where absent. More than that share the domains out in turn.
    k : int, optional
        Experts kept for a prompt; the paper's 2. None, or at least ``n_experts``: all of them, the dense mixture.
    hidden : sequence of int, optional
        Hidden widths of experts and shared part as perceptrons; linear where absent.
    shared : bool
        Whether there is a shared part r_0. Experts are then deviations from it, and ``l2`` pools them.
    view : str, optional
        Prompt views of the gate, as of a router; all of them, side by side, where absent.
    objective : str or Objective
        See :mod:`embedrm.objectives`.
    l2, l2_shared : float, "cv" or None
        lambda and lambda_0. ``"cv"`` chooses from ``l2_grid``, both together if both are, by the mean held-out loss of
        ``cv`` folds of whole prompt groups (linear experts only). None: 0.2 and 1 for linear experts, 0.001 both for
        perceptrons.
    l2_grid : sequence of float
    cv : int
    gate_l2 : float
        lambda_g.
    supervision : float
        Weight of the cross-entropy of the domains. At 0 no label is read, and training begins from clusters of prompts.
    prompt_weight : {"pairs", "prompts"}
        How prompts count in the terms of the gate: by the weight of their pairs, as they do in the loss, or alike. By the
        second, a domain of few prompts with many pairs each is hardly worth finding.
    balance : float
        Weight of Switch's balance loss (Fedus et al. 2022).
    variation : float
        Weight of the squared coefficients of variation of importance and, with noise, load (Shazeer et al. 2017).
    noise : float
        Standard deviation of normal noise on the logits in training (noisy top-k, one standard deviation for all).
    expert_dropout : float in [0, 1)
        Chance that an expert is left out for a prompt in a step; the gate is that of the others.
    tol, max_iter : float, int
        Linear experts without noise and dropout are fitted by L-BFGS on all pairs: the gap of the objective at which it
        stops, and its most iterations.
    learning_rate, batch_rows, max_epochs, early_stopping, validation_fraction, patience
        All others are trained by Adam; see :class:`embedrm.MLPHead`.
    random_state : int
        First weights, first clusters, batches, noise, dropout, held-out groups. Linear experts with supervision draw only
        where several share a domain: the first weights of their gates.

    Attributes
    ----------
    expert_names_ : list of str
        The domain that the gate was taught for each expert, or ``"expert 0"`` and so on.
    coef_ : ndarray of shape (n_features_in_, n_columns)
        Linear experts, and last the shared part; empty for perceptrons.
    weights_, biases_ : list of ndarray
        Perceptrons: ``weights_[l]`` (n_columns, n_in, n_out) and ``biases_[l]`` (n_columns, n_out); empty for linear.
    gate_weights_, gate_bias_ : ndarray of shape (gate_dim, n_gates), (n_gates,)
        On raw prompt vectors; the standardisation is folded in.
    gate_views_ : list of str
    expert_of_ : ndarray of shape (n_gates,), int
        Expert of each gate; several share one after :meth:`prune`.
    load_ : ndarray of shape (n_gates,)
        Share of the training prompts, by ``prompt_weight``, for which an expert is kept; sums to k.
    importance_ : ndarray of shape (n_gates,)
        Mean gate; sums to one.
    gate_entropy_ : float
        Mean entropy of the gate, in nats.
    l2_, l2_shared_ : float
    cv_results_ : list of dict
    history_ : list of dict
        ``step`` and ``objective``; for Adam ``epoch``, ``loss`` and, where pairs are held out, ``held_out_loss``.
    n_features_in_ : int

    Notes
    -----
    With one expert no gate is read, and without a shared part the model is the single head of the same penalty.

    References
    ----------
    Namgoong et al. (2024), "Exploring Domain Robust Lightweight Reward Models based on Router Mechanism", section on MoRE,
    k = 2. This is an analogue: the paper's experts are parts of one small language model, these are heads on frozen
    vectors, and the shared part is not in the paper. Shazeer et al. (2017), "Outrageously large neural networks".
    """

    def __init__(
        self,
        featurizer: Featurizer | None = None,
        n_experts: int | None = None,
        k: int | None = 2,
        hidden: Sequence[int] | None = None,
        shared: bool = True,
        view: str | None = None,
        objective: str | Objective = "bradley-terry",
        l2: float | str | None = None,
        l2_shared: float | str | None = None,
        l2_grid: Iterable[float] = L2_GRID,
        cv: int = 3,
        gate_l2: float = 1e-2,
        supervision: float = 1.0,
        prompt_weight: str = "pairs",
        balance: float = 0.0,
        variation: float = 0.0,
        noise: float = 0.0,
        expert_dropout: float = 0.0,
        tol: float = 1e-4,
        max_iter: int = 100,
        learning_rate: float = 1e-3,
        batch_rows: int = 512,
        max_epochs: int = 40,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 5,
        random_state: int = 0,
    ) -> None:
        self.featurizer = featurizer
        self.n_experts = n_experts
        self.k = k
        self.hidden = hidden
        self.shared = shared
        self.view = view
        self.objective = objective
        self.l2 = l2
        self.l2_shared = l2_shared
        self.l2_grid = l2_grid
        self.cv = cv
        self.gate_l2 = gate_l2
        self.supervision = supervision
        self.prompt_weight = prompt_weight
        self.balance = balance
        self.variation = variation
        self.noise = noise
        self.expert_dropout = expert_dropout
        self.tol = tol
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_rows = batch_rows
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> MixtureRewardModel:
        """Train gate and experts; see the class. Reads only the active rows. Returns self."""
        prefs = check_preferences(preferences, "MixtureRewardModel")
        hidden, grid = checked_parameters(self)
        n = len(prefs.domains) if self.n_experts is None else self.n_experts
        _refuse_cross_prompt(prefs, n)
        self.featurizer_ = (Featurizer() if self.featurizer is None else clone(self.featurizer)).fit(prefs)
        self.n_features_in_ = self.featurizer_.dim_
        self.n_experts_, self.k_ = n, n if self.k is None else min(self.k, n)
        by_adam = bool(hidden) or bool(self.noise) or bool(self.expert_dropout)
        candidates = candidates_of(self.l2, self.l2_shared, grid, PERCEPTRON_L2 if hidden else LINEAR_L2)
        if by_adam and len(candidates) > 1:
            raise InvalidInputError(
                "MixtureRewardModel chooses l2='cv' for linear experts without noise and expert_dropout only; give numbers, "
                "or search with scikit-learn's GridSearchCV"
            )
        comparisons = Comparisons.of(prefs)
        rows, position = np.unique(comparisons.prompt_of, return_inverse=True)
        objective = make_objective(self.objective)
        with threads_for(len(comparisons.rows) * self.n_features_in_):
            raw = self._fit_gate_views(prefs, rows)
            # the variation of a constant column is the rounding of its mean
            mean, spread = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, dtype=np.float64)
            spread = np.where(spread > 1e-6 * np.abs(mean), spread, 1.0)
            z = ((raw - mean) / spread).astype(np.float64 if raw.dtype == np.float64 else np.float32)
            settings = self._settings(candidates[0])
            shares = prompt_shares(position[comparisons.pairs[:, 0]], comparisons.weight, len(rows), settings.by_pairs)
            views = [
                prefs.responses.view(v) for v in (*self.featurizer_.response_views_, *self.featurizer_.prompt_views_)
            ]
            wide = not hidden and any(v.dtype == np.float64 for v in views)
            dtype = np.float64 if wide else np.float32
            features = FeatureRows(self.featurizer_, prefs.responses, comparisons.rows, dtype)
            prompts = self._prompts(prefs, rows, z, shares)
            problem = Fit(
                settings, objective, comparisons, prefs.groups, features, position, prompts, int(self.random_state)
            )
            if by_adam:
                found = problem.step(self._schedule(hidden), float(self.validation_fraction))
            else:
                found = problem.solve(candidates, self.cv, float(self.tol), int(self.max_iter))
        parameters = found.parameters
        self.l2_, self.l2_shared_ = found.penalties
        self.cv_results_, self.history_ = found.cv_results, found.history
        self.basis_, self.loadings_ = np.zeros((self.n_features_in_, 0)), np.zeros((0, n))
        network, coef = parameters.network, parameters.coef
        # row by row in memory, as a file gives arrays back: products of another layout round differently
        self.coef_ = np.zeros((0, n)) if coef is None else np.ascontiguousarray(coef)
        self.weights_, self.biases_ = ([], []) if network is None else (network.weights, network.biases)
        self.expert_of_ = np.arange(n)
        self.gate_weights_ = np.ascontiguousarray(parameters.gate_weights / spread[:, None])
        self.gate_bias_ = parameters.gate_bias - mean @ self.gate_weights_
        self._log_gate(found.logits, found.weight)
        return self

    def check_parameters(self) -> None:
        """Raise where ``fit`` would refuse a parameter whatever the data."""
        checked_parameters(self)

    def _settings(self, penalties: tuple[float, float]) -> Settings:
        return Settings(
            n_experts=self.n_experts_,
            k=self.k_,
            shared=bool(self.shared),
            l2=penalties[0],
            l2_shared=penalties[1],
            gate_l2=float(self.gate_l2),
            supervision=float(self.supervision),
            balance=float(self.balance),
            variation=float(self.variation),
            noise=float(self.noise),
            expert_dropout=float(self.expert_dropout),
            by_pairs=self.prompt_weight == "pairs",
        )

    def _schedule(self, hidden: tuple[int, ...] | None) -> Schedule:
        return Schedule(
            hidden or (),
            float(self.learning_rate),
            int(self.batch_rows),
            int(self.max_epochs),
            int(self.patience) if self.early_stopping else None,
            int(self.random_state),
        )

    def _fit_gate_views(self, prefs: EmbeddedPreferences, rows: Rows) -> NDArray[Any]:
        """Vectors of the prompts; no column where one expert leaves nothing to choose."""
        self.gate_views_: list[str] = []
        self.gate_widths_: list[int] = []
        if self.n_experts_ == 1:
            return np.zeros((len(rows), 0), dtype=np.float32)
        responses = prefs.responses
        self.gate_views_ = list(select_views(self.view, responses.views, "prompt", "MixtureRewardModel(view=...)"))
        self.gate_widths_ = [responses.view(v).shape[1] for v in self.gate_views_]
        raw = check_vectors(prompt_vectors(responses, self.gate_views_, rows), "MixtureRewardModel")
        return raw.astype(np.float32) if raw.dtype == np.float16 else raw

    def _prompts(self, prefs: EmbeddedPreferences, rows: Rows, z: NDArray[Any], weight: Array) -> Prompts:
        n = self.n_experts_
        if n == 1:
            self.expert_names_ = ["expert 0"]
            return Prompts(z, np.zeros(len(z), dtype=np.intp), np.zeros(1, dtype=np.intp))
        if not self.supervision:
            self.expert_names_ = [f"expert {e}" for e in range(n)]
            return Prompts(z, clusters(z, weight, n, self.random_state), np.arange(n))
        names, codes = np.unique(prefs.responses.domain[rows], return_inverse=True)
        if n < len(names):
            raise InvalidInputError(
                f"MixtureRewardModel teaches the gate {len(names)} domains with n_experts={n}; give at least as many "
                "experts as domains, or supervision=0 to let experts divide the prompts themselves"
            )
        label = np.arange(n) % len(names)
        self.expert_names_ = [str(names[d]) for d in label]
        return Prompts(z, codes, label)

    def _log_gate(self, logits: Array, weight: Array) -> None:
        gate = sparse_softmax(logits, self.k_)
        self.load_ = weight @ kept_logits(logits, self.k_).astype(np.float64)
        self.importance_ = weight @ gate
        self.gate_entropy_ = -float(weight @ (gate * np.log(np.where(gate > 0, gate, 1.0))).sum(axis=1))

    @property
    def margins_are_logits(self) -> bool:
        """As the objective has it."""
        return make_objective(self.objective).margins_are_logits

    def gates(self, responses: EmbeddedResponses, prompts: Rows | None = None) -> Array:
        """Weight of each expert for each prompt, zero where it is left out; shape (n_prompts, n_experts_)."""
        check_is_fitted(self, "gate_bias_")
        prompts = np.arange(responses.n_prompts) if prompts is None else prompts
        out = np.zeros((len(prompts), self.n_experts_))
        for view, width in zip(self.gate_views_, self.gate_widths_):
            responses.view(view, width, "MixtureRewardModel")
        for start in range(0, len(prompts), _GATE_ROWS):
            part = slice(start, start + _GATE_ROWS)
            logits = np.zeros((len(prompts[part]), len(self.gate_bias_)))
            if self.gate_views_:
                x = check_vectors(prompt_vectors(responses, self.gate_views_, prompts[part]), "MixtureRewardModel")
                logits = x.astype(np.float64) @ self.gate_weights_ + self.gate_bias_
            gate = sparse_softmax(logits, self.k_)
            np.add.at(out[part].T, self.expert_of_, gate.T)
        return out

    def expert_rewards(self, responses: EmbeddedResponses, rows: Rows | None = None) -> Array:
        """Reward of every expert for every response, the shared part in it; shape (n, n_experts_)."""
        columns = self._columns(responses, rows)
        n = self.n_experts_
        return columns[:, :n] + columns[:, n:]

    def required_views(self) -> tuple[str, ...]:
        """The featurizer's views and the gate's."""
        check_is_fitted(self, "gate_bias_")
        views = {*self.featurizer_.response_views_, *self.featurizer_.prompt_views_, *self.gate_views_}
        return tuple(sorted(views))

    def _single_view(self) -> str | None:
        views = self.required_views()
        return views[0] if len(views) == 1 else None

    def _columns(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        """Rewards of the experts and, last, of the shared part."""
        check_is_fitted(self, "gate_bias_")
        self.featurizer_.check(responses, "MixtureRewardModel")
        if not self.weights_:
            columns = LinearMap(self.featurizer_, responses, rows).forward(self.linear_weights())
        else:
            network = Network(self.weights_, self.biases_)
            features = FeatureRows(self.featurizer_, responses, rows, hold=False)
            columns = np.empty((len(features), network.n_members))
            for part, block in features.blocks():
                columns[part] = network.predict(block)
        check_finite(columns.sum(axis=1), "MixtureRewardModel")
        return columns

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        columns = self._columns(responses, rows)
        prompt_of = responses.prompt_of if rows is None else responses.prompt_of[rows]
        prompts, local = np.unique(prompt_of, return_inverse=True)
        return mix(columns, self.gates(responses, prompts)[local], self.n_experts_)

    def check_pairs(self, preferences: EmbeddedPreferences) -> None:
        """Refuse pairs across prompts unless there is one expert."""
        check_is_fitted(self, "gate_bias_")
        _refuse_cross_prompt(preferences, self.n_experts_)


def _refuse_cross_prompt(prefs: EmbeddedPreferences, n_experts: int) -> None:
    n_cross = int(prefs.cross_prompt.sum())
    if n_cross and n_experts > 1:
        raise InvalidInputError(
            f"{n_cross} of {len(prefs)} pairs compare responses to different prompts, whose gates mix the free constants of "
            "the experts differently; drop those pairs, or use n_experts=1"
        )
