"""What `feast -c feature_repo apply` finds: the definitions for the installation that CONTINUUM_HOME names.

Feast looks at module-level names, so each object gets one. Belongs here: nothing else. Programs use
`feature_repo.online.apply`.
"""

from contracts.settings import read_retailer, read_settings
from feature_repo.views import build_definitions

_settings = read_settings()
_definitions = build_definitions(_settings, read_retailer(_settings))
globals().update({f"{type(found).__name__}_{found.name}": found for found in _definitions.everything})
