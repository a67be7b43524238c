from pyarrow.lib import *
from pyarrow.lib import NullScalar

NULL: NullScalar
__version__: str
