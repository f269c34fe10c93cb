"""First import of the forkserver that engines are forked from: it ends with its replica, however that ends.

It comes before the imports that take seconds, and so before there is anything to leave behind.
"""

import os

from headway.parent_death import PARENT_VARIABLE, end_with_parent

end_with_parent(int(os.environ[PARENT_VARIABLE]))
