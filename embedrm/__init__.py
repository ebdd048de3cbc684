"""Embedding-based reward modelling on a CPU: encode once, then train heads, routers and mixtures in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module. Nothing below is imported until it is asked for.
_PUBLIC = {
    "ARMHead": "embedrm.decoding.arm",
    "AdapterRewardModel": "embedrm.composites.adapters",
    "Annotator": "embedrm.numerics.annotation",
    "AnnotatorPool": "embedrm.numerics.annotator_pool",
    "CalibratedRewardModel": "embedrm.composites.calibrated",
    "CentroidRouter": "embedrm.routers.centroid",
    "EmbeddedPreferences": "embedrm.preferences",
    "EmbeddedResponses": "embedrm.preferences",
    "EmbeddingStore": "embedrm.store",
    "EnsembleRewardModel": "embedrm.composites.ensemble",
    "Experiment": "embedrm.experiments.experiment",
    "Featurizer": "embedrm.featurizers",
    "GBDTHead": "embedrm.heads.gbdt",
    "HashingEncoder": "embedrm.encoders.hashing",
    "KNNRouter": "embedrm.routers.knn",
    "LengthHead": "embedrm.heads.length",
    "LightGBMRouter": "embedrm.routers.lightgbm",
    "LinearHead": "embedrm.heads.linear",
    "LogisticRouter": "embedrm.routers.logistic",
    "MLPHead": "embedrm.heads.mlp",
    "MergedEncoder": "embedrm.encoders.merged",
    "MergedRewardModel": "embedrm.composites.merged",
    "MixtureRewardModel": "embedrm.composites.mixture",
    "PooledRewardModel": "embedrm.composites.pooled",
    "PreferenceDataset": "embedrm.datasets",
    "RADHead": "embedrm.decoding.rad",
    "RandomHead": "embedrm.heads.random",
    "RejectingRouter": "embedrm.routers.rejecting",
    "Report": "embedrm.reporting",
    "RewardModel": "embedrm.reward_model",
    "RewardPipeline": "embedrm.pipeline",
    "RoutedRewardModel": "embedrm.composites.routed",
    "SentenceEncoder": "embedrm.encoders.sentence",
    "SklearnRouter": "embedrm.routers.scikit",
    "Sweep": "embedrm.experiments.sweep",
    "TunedEncoder": "embedrm.tuning.tuned",
    "TuningConfig": "embedrm.tuning.config",
    "annotate": "embedrm.annotation",
    "compare": "embedrm.reporting.evaluation",
    "diagnose_comparisons": "embedrm.evaluation.connectivity",
    "draw_pairs": "embedrm.datasets.drawing",
    "encode": "embedrm.encoding",
    "evaluate": "embedrm.reporting.evaluation",
    "label_actively": "embedrm.active.rounds",
    "load_bundled": "embedrm.datasets.bundled",
    "load_encoder": "embedrm.encoders",
    "merge_encoders": "embedrm.merging.encoders",
    "merge_heads": "embedrm.merging.heads",
    "read_preferences": "embedrm.datasets",
    "select_pairs": "embedrm.active",
    "with_gold": "embedrm.datasets.gold",
    "write_encoder_moments": "embedrm.merging.encoder_fisher",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from embedrm.active import select_pairs
    from embedrm.active.rounds import label_actively
    from embedrm.annotation import annotate
    from embedrm.composites.adapters import AdapterRewardModel
    from embedrm.composites.calibrated import CalibratedRewardModel
    from embedrm.composites.ensemble import EnsembleRewardModel
    from embedrm.composites.merged import MergedRewardModel
    from embedrm.composites.mixture import MixtureRewardModel
    from embedrm.composites.pooled import PooledRewardModel
    from embedrm.composites.routed import RoutedRewardModel
    from embedrm.datasets import PreferenceDataset, read_preferences
    from embedrm.datasets.bundled import load_bundled
    from embedrm.datasets.drawing import draw_pairs
    from embedrm.datasets.gold import with_gold
    from embedrm.decoding.arm import ARMHead
    from embedrm.decoding.rad import RADHead
    from embedrm.encoders import load_encoder
    from embedrm.encoders.hashing import HashingEncoder
    from embedrm.encoders.merged import MergedEncoder
    from embedrm.encoders.sentence import SentenceEncoder
    from embedrm.encoding import encode
    from embedrm.evaluation.connectivity import diagnose_comparisons
    from embedrm.experiments.experiment import Experiment
    from embedrm.experiments.sweep import Sweep
    from embedrm.featurizers import Featurizer
    from embedrm.heads.gbdt import GBDTHead
    from embedrm.heads.length import LengthHead
    from embedrm.heads.linear import LinearHead
    from embedrm.heads.mlp import MLPHead
    from embedrm.heads.random import RandomHead
    from embedrm.merging.encoder_fisher import write_encoder_moments
    from embedrm.merging.encoders import merge_encoders
    from embedrm.merging.heads import merge_heads
    from embedrm.numerics.annotation import Annotator
    from embedrm.numerics.annotator_pool import AnnotatorPool
    from embedrm.pipeline import RewardPipeline
    from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses
    from embedrm.reporting import Report
    from embedrm.reporting.evaluation import compare, evaluate
    from embedrm.reward_model import RewardModel
    from embedrm.routers.centroid import CentroidRouter
    from embedrm.routers.knn import KNNRouter
    from embedrm.routers.lightgbm import LightGBMRouter
    from embedrm.routers.logistic import LogisticRouter
    from embedrm.routers.rejecting import RejectingRouter
    from embedrm.routers.scikit import SklearnRouter
    from embedrm.store import EmbeddingStore
    from embedrm.tuning.config import TuningConfig
    from embedrm.tuning.tuned import TunedEncoder


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'embedrm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
