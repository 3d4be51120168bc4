"""A trained model on disk and in memory, without torch: its files, its graph, and the ranking by onnxruntime."""
