"""PDF files by pdfium: their pages as pictures, the text that they hold, and text laid over them. Alone in importing pypdfium2.

pdfium is entered by one thread only, can be held for ever by a file of some hundred bytes, and takes what memory a file asks for. So it
runs in processes of its own, which can be ended:

    server:  reader ─► pages (PdfPages) ─► processes (whose turn it is) ─► process (one of them)
                                                                              │ frames over a socket (`wire`, `packing`)
    process:                                        worker (its loop, `confinement`) ─► drawing, layer, overlay ─► pdfium

A process reads for one document at a time, and keeps the last one open. What it is asked for is begun anew in another at any time: so one
that is ended takes nothing along but the page that held it.
"""
