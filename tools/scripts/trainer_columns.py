"""The columns without which TRL's trainers do not train."""

from __future__ import annotations

from collections.abc import Mapping

_NEEDED: Mapping[str, tuple[frozenset[str], ...]] = {
    "DPOTrainer": (frozenset({"chosen", "rejected"}),),
    "RewardTrainer": (frozenset({"chosen", "rejected"}), frozenset({"chosen_ids", "rejected_ids"})),
    "ORPOTrainer": (frozenset({"chosen", "rejected"}),),
    "CPOTrainer": (frozenset({"chosen", "rejected"}),),
    "KTOTrainer": (frozenset({"prompt", "completion", "label"}), frozenset({"chosen", "rejected"})),
    "GRPOTrainer": (frozenset({"prompt"}),),
    "RLOOTrainer": (frozenset({"prompt"}),),
    "OnlineDPOTrainer": (frozenset({"prompt"}),),
    "DistillationTrainer": (frozenset({"prompt"}),),
    "GKDTrainer": (frozenset({"messages"}),),
}


def needed_columns(trainer_class: str, *, text_field: str = "text") -> tuple[frozenset[str], ...] | None:
    """Sets of columns of which one must be there; None of a class that is not known here.

    ``text_field`` is SFT's `dataset_text_field`. Source: the trainers of the TRL in constraints/tested.txt.
    """
    if trainer_class == "SFTTrainer":
        sets = (
            {text_field},
            {"messages"},
            {"prompt", "completion"},
            {"input_ids"},
            {"conversations"},
            {"conversation"},
        )
        return tuple(map(frozenset, sets))
    return _NEEDED.get(trainer_class)
