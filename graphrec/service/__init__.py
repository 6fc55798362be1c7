"""From an event log to a service: a bundle of files, its rules, and suggestions for all users."""

import sys
from typing import TYPE_CHECKING

from graphrec.lazy import lazy_names

if TYPE_CHECKING:
    from graphrec.service.bundle import Bundle as Bundle
    from graphrec.service.evaluating import BundleEvaluation as BundleEvaluation
    from graphrec.service.export import suggest_everyone as suggest_everyone
    from graphrec.service.manifest import StaleBundleError as StaleBundleError
    from graphrec.service.manifest import current_digest as current_digest
    from graphrec.service.rule_changes import change_rules as change_rules
    from graphrec.service.rule_store import RuleStore as RuleStore
    from graphrec.service.rules import Rules as Rules
else:
    __getattr__, __dir__ = lazy_names(sys.modules[__name__])
