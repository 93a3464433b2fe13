"""Stage *model registration*: a model that loads without motet, its versions, and who is champion."""
