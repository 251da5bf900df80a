"""Derivatives of any ONNX ConvNet without a framework, beside what random noise says of it.

differentiable  values and Jacobian products of one prepared graph, per grey level
check           the derivative graphs' self-check against central differences
isotropy        Eq. 3: gradient and Hessian          (plain arrays)
jacobian        the largest singular value           (plain arrays)
attacks         FGSM with line search, DeepFool      (plain arrays)
differences     the forward-only fallback            (plain arrays)
image           all of it for one image
noise           what the run's random noise did around that image
sensitivity     all of it for the first images of a run: RUN/sensitivity.json
documents       the keys of that file
sentences       its figures in words
"""
