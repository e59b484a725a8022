"""The import contract of the house, for import-linter: a table of rooms, and for each the rooms it may import.

An allowlist, unlike import-linter's own contracts: a room that the table does not know is an error, so a new one must be
given its floor; one that the table knows and that is not there yet is none.
"""

from dataclasses import dataclass, field
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


@dataclass(frozen=True, slots=True)
class Breach:
    importer: str
    imported: str
    lines: str
    why: str


@dataclass(slots=True)
class Table:
    """Lines of the form `name: other, other`, looked up by the longest name that holds a module."""

    rows: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, lines: list[str]) -> "Table":
        rows = {}
        for line in lines:
            name, _, others = line.partition(":")
            rows[name.strip()] = frozenset(other.strip() for other in others.split(",") if other.strip())
        return cls(rows)

    def find(self, module: str) -> str | None:
        name = module
        while name and name not in self.rows:
            name = name.rpartition(".")[0]
        return name or None


class RoomsContract(Contract):
    """rooms: what each room may import of ours; libraries: the only rooms that may import one; pure: all that one may."""

    type_name = "rooms"

    root = fields.StringField()
    everywhere = fields.ListField(subfield=fields.StringField())
    rooms = fields.ListField(subfield=fields.StringField())
    libraries = fields.ListField(subfield=fields.StringField())
    pure = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        del verbose
        # import-linter puts each field's parsed value in the place of the field.
        self.name_of_root = cast(str, self.root)
        self.open = frozenset(cast(list[str], self.everywhere))
        self.table = Table.parse(cast(list[str], self.rooms))
        self.owners = Table.parse(cast(list[str], self.libraries))
        self.outside = Table.parse(cast(list[str], self.pure))
        breaches = []
        for importer in sorted(module for module in graph.modules if self.ours(module)):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if why := self.judge(importer, imported):
                    details = graph.get_import_details(importer=importer, imported=imported)
                    lines = ", ".join(str(detail["line_number"]) for detail in details)
                    breaches.append(Breach(importer, imported, lines, why))
        return ContractCheck(kept=not breaches, metadata={"breaches": breaches})

    def ours(self, module: str) -> bool:
        return (module + ".").startswith(f"{self.name_of_root}.")

    def judge(self, importer: str, imported: str) -> str | None:
        """Why this import may not be, or None."""
        room = self.room(importer)
        if room is None:
            return f"{importer} is in no room: give it one in pyproject.toml"
        if self.ours(imported):
            return self.judge_inside(room, imported)
        return self.judge_outside(room, importer, imported)

    def room(self, module: str) -> str | None:
        """The room of a module of ours; the root holds nothing but itself."""
        found = self.table.find(module)
        return None if found == self.name_of_root != module else found

    def judge_inside(self, room: str, imported: str) -> str | None:
        target = self.room(imported)
        if target is None:
            return f"{imported} is in no room: give it one in pyproject.toml"
        if target == room or target in self.open or target in self.table.rows[room]:
            return None
        return f"{room} may import {', '.join(sorted(self.table.rows[room])) or 'nothing of ours'}"

    def judge_outside(self, room: str, importer: str, imported: str) -> str | None:
        library = self.owners.find(imported)
        if library and room not in self.owners.rows[library]:
            return f"only {', '.join(sorted(self.owners.rows[library]))} may import {library}"
        pure = self.outside.find(importer)
        if pure and imported not in self.outside.rows[pure]:
            return (
                f"{pure} is pure: no clock, no I/O, no chance; if {imported} has none of them, say so in pyproject.toml"
            )
        return None

    def render_broken_contract(self, check: ContractCheck) -> None:
        for breach in cast(list[Breach], check.metadata["breaches"]):
            output.print_error(f"{breach.importer} -> {breach.imported} (line {breach.lines})", bold=True)
            output.print_error(f"    {breach.why}", bold=False)
