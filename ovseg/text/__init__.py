"""Words to embeddings."""
