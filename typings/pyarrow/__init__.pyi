from pyarrow.lib import *

__version__: str
