"""The fields that every recipe has."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlintern.tools.scripts.data_sources import read_source
from mlintern.tools.scripts.header import check_not_pinned, check_requirement
from mlintern.tools.scripts.literals import Expression
from mlintern.tools.scripts.recipe_parts import Source, Strict, validation_errors

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
HUB_REPOSITORY = r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$"


class RunRecipe(Strict):
    """What every script needs."""

    name: str = Field(
        default="", max_length=120, description="How people will call the script; default: trainer and model."
    )
    model: Source = Field(description="Hub id, or the folder of a saved model such as <job>/output/model.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hub model.")
    seed: Seed = 0
    use_cpu: bool | None = Field(default=None, description="None: the GPU if there is one when the script runs.")
    requirements: list[str] = Field(
        default=[], description="Further packages that your snippets import, as 'name==version'."
    )

    @property
    def title(self) -> str:
        trainer = str(getattr(self, "trainer", "script"))
        return self.name or f"{trainer}-{self.model.rstrip('/').rsplit('/', 1)[-1]}"

    @property
    def device_expression(self) -> bool | Expression:
        """Whether the processor is used, as a script says it."""
        return Expression("not torch.accelerator.is_available()") if self.use_cpu is None else self.use_cpu

    @model_validator(mode="after")
    def _run_fits(self) -> Self:
        with validation_errors():
            if getattr(self, "endpoint", None) is None:  # else it is a name there
                model = read_source(self.model, kind="model", revision=self.revision)
                self.model, self.revision = model.name, model.revision
            for requirement in self.requirements:
                check_requirement(requirement)
                check_not_pinned(requirement)
        return self
