"""How far the estimators are from measured figures."""
