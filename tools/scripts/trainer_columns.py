"""The columns without which TRL's trainers do not train."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


def columns_beside(trainer_class: str, given: Collection[str], *, text_field: str = "text") -> frozenset[str]:
    """``given``, and the columns that the trainer reads together with them; others of the data are another shape.

    With `prompt` SFT reads `completion`, and no `messages` that stand beside it.
    """
    shapes = [_whole(names) for names in needed_columns(trainer_class, text_field=text_field) or ()]
    fitting = [shape for shape in shapes if shape & set(given)] or shapes
    return frozenset(given).union(*fitting)


def _whole(needed: frozenset[str]) -> frozenset[str]:
    """With what may stand beside: not needed, but read where it is there."""
    beside = {"tools", "chat_template_kwargs"}
    if "input_ids" in needed:
        return needed | {"labels", "completion_mask", "assistant_masks"}
    if needed & {"chosen", "chosen_ids"}:
        beside |= {"prompt", "margin"}
    return needed | beside
