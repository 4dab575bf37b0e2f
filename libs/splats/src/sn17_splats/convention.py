"""What the subnet agreed on: how colour is stored, and what its validators refuse before they render."""

from __future__ import annotations

import math
from typing import Final

#: Constant of the zeroth spherical harmonic, 1 / (2 sqrt(pi)): rgb = 0.5 + SH_C0 * f_dc.
SH_C0: Final = 0.28209479177387814

#: Validators refuse fewer.
MIN_GAUSSIANS: Final = 7_000
#: Validators refuse a larger share of transparent gaussians.
MAX_TRANSPARENT_SHARE: Final = 0.8
#: Alpha below which a validator counts a gaussian as transparent, in what it decoded.
TRANSPARENT_ALPHA: Final = 1e-3
#: The same threshold for what is still to be sent: SPZ stores alpha in 8 bits, and all that rounds to 0
#: arrives below ``TRANSPARENT_ALPHA``; 1/255 arrives above it.
TRANSPARENT_LOGIT: Final = math.log(0.5 / 254.5)
