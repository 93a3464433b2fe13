"""The MLflow face of a model: models-from-code, beside the files it reads.

Why: ``mlflow.pyfunc.load_model`` runs this file in the consumer's environment, which has none of our packages and
perhaps a ``tasks.py`` of its own. Runs: anywhere. Source: own; MLflow 3 "models from code".
"""

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


def _load_scoring(bundle: Path) -> ModuleType:
    """As ``scoring.load_source``, which is not here yet."""
    content = (bundle / "scoring.py").read_bytes()
    name = f"_motet_model_scoring_{hashlib.sha256(content).hexdigest()[:16]}"
    if name not in sys.modules:
        module = ModuleType(name)
        sys.modules[name] = module  # dataclasses look their module up
        exec(compile(content, "scoring.py", "exec"), module.__dict__)  # noqa: S102 - the model's own code
    return sys.modules[name]


class SmilesModel(PythonModel):  # type: ignore[misc]  # MLflow is untyped here
    """SMILES in, a table out: predictions of endpoints, or the features of a trunk."""

    def load_context(self, context: Any) -> None:
        """Load the files beside this one."""
        bundle = Path(context.artifacts["bundle"])
        self.model = _load_scoring(bundle).load(bundle)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict.

        Args:
            context: MLflow's; unused.
            model_input: Column ``smiles``.
            params: ``endpoints``: names of the endpoints to predict; all if empty. ``significance``: how often a
                conformal set may miss the true class, or an interval the true value, 0.2 unless given. ``embeddings``:
                true for the trunk's features instead.

        Returns:
            For endpoints: ``smiles, endpoint, probability, calibrated_probability, conformal_set, value, value_low,
            value_high, in_domain, valid, reason``, one row per molecule and endpoint (without those in the middle that
            the model does not have: it was not calibrated, or it has no classes or no numbers). For a trunk, or where
            asked: ``smiles, features, valid, reason``. What is missing is None, not NaN.
        """
        del context
        smiles = model_input["smiles"].tolist()
        asked = params or {}
        if self.model.card["kind"] == "trunk" or asked.get("embeddings"):
            columns = self.model.embeddings(smiles)
        else:
            chosen = {"significance": float(asked["significance"])} if asked.get("significance") else {}
            columns = self.model.predictions(smiles, endpoints=list(asked.get("endpoints") or ()), **chosen)
        # Text columns stay objects: pandas would turn a None among strings into NaN, which is no JSON.
        table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
        table["valid"] = table["valid"].astype(bool)
        if table["valid"].all():
            types = dict.fromkeys(("probability", "calibrated_probability", "value"), "float64")
            types |= {"value_low": "float64", "value_high": "float64", "in_domain": "bool"}
            whole = [name for name in types if name in table and table[name].notna().all()]
            table = table.astype({name: types[name] for name in whole})
        return table


set_model(SmilesModel())
