"""Checks of what left: read back from where it lies, not from what the export remembers."""

from collections.abc import Iterator

import dagster as dg

from orchestration.defs.outbound.assets import AUDIENCES
from orchestration.metadata import markdown_table
from orchestration.resources import Shop

NAMES = {
    "complete": "Every audience could be chosen, and every destination was served.",
    "consent": "Nobody is at a destination who does not allow the audience's purpose, or was erased.",
    "counts": "Every destination holds as many rows as were chosen, and files are what their manifests name.",
    "deliveries": "No destination has used up its attempts.",
}


def build_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of what left."""
    specs = [dg.AssetCheckSpec(name=name, asset=AUDIENCES, description=text) for name, text in NAMES.items()]

    @dg.multi_asset_check(specs=specs, name="outbound_checks")
    def outbound_checks(shop: Shop) -> Iterator[dg.AssetCheckResult]:
        from orchestration.outbound.auditing import judge

        for name, (passed, text, rows) in judge(shop.settings(), shop.profile()).items():
            yield dg.AssetCheckResult(
                asset_key=AUDIENCES,
                check_name=name,
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN if name == "deliveries" else dg.AssetCheckSeverity.ERROR,
                description=text,
                metadata={"places": markdown_table(rows, list(rows[0]))} if rows else {},
            )

    return [outbound_checks]
