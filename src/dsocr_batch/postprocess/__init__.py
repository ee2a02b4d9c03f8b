"""From a model's raw text to markdown: pure text functions, one page at a time.

``page.process_page`` is the whole way of one page; ``clean`` holds the visible order of its
steps; ``assemble`` makes one document of many pages.
"""
