"""Other ways to load the same sequences, each as its users are told to do it.

A contender is a module with `REQUIRES` (packages), `prepare(work)` (convert the data, once) and `batches(work)`: an
endless iterator of (views, actions) of BATCH sequences of SEQUENCE views, with two workers or threads. Unless the
name says otherwise, views are uint8, JPEGs are decoded with simplejpeg and actions are computed a batch at a time with
our closed form, so that what is compared is the loading.
"""

PEERS = {
    "released (256-px tree, PIL, float32)": "released",
    "naive folder (128-px tree, PIL, uint8)": "naive_folder",
    "webdataset (decodes only 4)": "webdataset_tars",
    "litdata": "litdata_chunks",
    "mosaicml-streaming": "mosaic_mds",
    "hf datasets (Arrow)": "hf_arrow",
    "spdl (128-px tree)": "spdl_pipeline",
    "spdl over our shards and plans": "spdl_our_shards",
}
RELEASED = "released (256-px tree, PIL, float32)"
OUR_PARTS = "spdl over our shards and plans"  # measured, but not a peer that one can install
