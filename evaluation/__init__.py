"""The one harness: how policies are judged, during training and after it, and the report."""
