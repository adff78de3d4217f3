"""Findings: coded, explainable remarks about one object."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from meshgw.api.meta import ObjectRef


class Level(StrEnum):
    """How serious a finding is; `meshgw analyze` exits with 1 on an error."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One remark: `code` indexes `meshgw.ir.codes.CODES`, which holds level, cause and remedy."""

    code: str
    object: ObjectRef
    message: str
    field: str = ""

    @property
    def sort_key(self) -> tuple[str, str, str, str]:
        """An order independent of how findings were found."""
        return (str(self.object), self.code, self.field, self.message)
