"""Pages that show what was found: one file each, which opens without a network.

`sources` reads what a page tells, `charts` makes the figures of it, `search_page` and
`other_pages` put the two into the templates, `page` writes the file. `live` writes that of a search
while it runs. No server is needed, and torch only where a network has to be drawn.
"""
