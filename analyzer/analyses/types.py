"""Numbers that the documents of the analyses may lack."""

from typing import Annotated

FloatOrNaN = Annotated[float, "NaN where undefined"]
"""JSON has null there."""
FloatOrInf = Annotated[float, "infinite where nothing was found"]
"""JSON has null there."""
