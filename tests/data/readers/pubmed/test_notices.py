"""Publishers' notices at the end of abstracts go; sentences of the authors stay."""

from __future__ import annotations

import pytest

from electramed_jax.data.readers.pubmed import notices


@pytest.mark.parametrize(
    "notice",
    [
        "Copyright © 2019 Elsevier Ltd. All rights reserved.",
        "Copyright 1999 Academic Press.",
        "Copyright (c) 2003 Wiley-Liss, Inc.",
        "Crown Copyright © 2010. Published by Elsevier Ltd.",
        "© 2020 The Authors. Journal of Invention published by Wiley on behalf of Invention.",
        "©2017 AACR.",
        "(c)2001 by Le Jacq.",
        "(C) 1998 Academic Press",
        "Published by Elsevier B.V.",
        "This article is protected by copyright. All rights reserved.",
        "(PsycINFO Database Record (c) 2016 APA, all rights reserved).",
        "2010 Elsevier GmbH. All rights reserved.",
        "Cancer Res; 78(5); 1214-24. ©2018 AACR.",
        "Environ. Toxicol. Chem. 2013;32:1016-1026. © 2013 SETAC.",
        "2011 Elsevier Ireland Ltd.",
        "Karger. All rights reserved.",
        "Georg Thieme Verlag Stuttgart, New York.",
        "© Georg Thieme Verlag KG Stuttgart · New York.",
        "Copyright retained by the authors.",
        "Published 2011. This article is a U.S. Government work and is in the public domain in the USA.",
        "This article is a U.S. Government work and is in the public domain in the USA.",
        "© 2018 Wiley-VCH Verlag GmbH & Co. KGaA, Weinheim.",
        "© The Author(s) 2019. Published by Oxford University Press on behalf of the Society. All rights reserved. "
        "For permissions, please email: journals.permissions@oup.com.",
        "This is an open access article distributed under the terms of the Creative Commons Attribution License, which "
        "permits unrestricted use, distribution, and reproduction in any medium, provided the original work is "
        "properly cited.",
        "Copyright © 2015 Elsevier España, S.L.U. Todos los derechos reservados.",
        "Copyright © 2012 Elsevier Masson SAS. Tous droits réservés.",
        "© 2013 Wiley Periodicals, Inc. J Invent Mater Res Part A: 101A: 1202-1212, 2013.",
        "Hum Invent 31:1-10, 2010. © 2010 Wiley-Liss, Inc.",
        "(Invention 2017;65:11-20). © 2017 by the Society for the Study of Inventions.",
        "© RSNA, 2015 Online supplemental material is available for this article.",
        "Clin Invent Res; 22(3); 1-2. ©2015 AACR. See related commentary by Smith, p. 1234.",
        "Copyright © 2015 The Authors. This is an open access article under the CC BY-NC-ND license "
        "(http://creativecommons.org/licenses/by-nc-nd/4.0/).",
        "© 2016 The Author. For reprints contact: permissionsdesk@invention.example.",
        "© 2020 Wiley Periodicals, Inc. This article is categorized under: Invention > Methods and Tools.",
        "Published under licence to Invention Central.",
        "Inc.",
        "J. Invent. Physiol. (c) 2012 Wiley Periodicals, Inc.",
    ],
)
def test_a_notice_at_the_end_is_removed(notice):
    assert notices.strip_notice(f"We tried (n = 3). It worked in COS cells. {notice}") == (
        "We tried (n = 3). It worked in COS cells."
    )
    assert notices.strip_notice(notice) == ""


@pytest.mark.parametrize(
    "text",
    [
        "The law of copyright in 2010 was studied.",
        "Aims: (a) to see, (b) to hear and (c) 2010 to report.",
        "The IL-2/gamma(c) interface. The PrP(C) protein.",
        "Data were analysed with SPSS © 2013.",
        "Guidelines published by Elsevier were followed.",
        "Published by Springer in 2001, the second edition became a standard.",
        "Copyright laws were changed, and authors responded.",
        "Copyright by Jones et al. is criticised. We found that it works.",
        "The tool is in the public domain and can be downloaded.",
        "The alignments are available in the public domain and can be reproduced under a licence.",
        "Supplementary data are available with permission of the authors.",
        "All data of 2015 were sent to the BMJ Publishing Group for review.",
        "© 2019 Invention. " + "And then the abstract continued. " * 7,
        "We holding all rights reserved the right.",
    ],
)
def test_a_sentence_of_the_authors_is_kept(text):
    assert notices.strip_notice(text) == text
